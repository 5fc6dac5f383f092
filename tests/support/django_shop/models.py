"""The tables of a Django project of the tests."""

from typing import ClassVar

from django.db import models


class Product(models.Model):
    """A product."""

    name: models.Field = models.TextField(primary_key=True)
    stock: models.Field = models.IntegerField()

    objects: ClassVar[models.Manager]

    def __str__(self) -> str:
        """The name."""
        return str(self.name)


class Order(models.Model):
    """An order."""

    item: models.Field = models.TextField(unique=True)
    amount: models.Field = models.IntegerField(default=0)

    objects: ClassVar[models.Manager]

    def __str__(self) -> str:
        """The item."""
        return str(self.item)
