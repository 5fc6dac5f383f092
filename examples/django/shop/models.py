from django.db import models


class Product(models.Model):
    name = models.CharField(max_length=100, primary_key=True)
    stock = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.stock} {self.name}"


class Order(models.Model):
    id = models.UUIDField(primary_key=True)
    product = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.quantity} {self.product}"
