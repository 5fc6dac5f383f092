"""What the shop does. Each function stores rows and their event, in one transaction."""

from uuid import UUID

from dsql_outbox import Entity, Event
from dsql_outbox.django import append, transact

from .models import Order, Product


class SoldOut(Exception):
    pass


def stock(name: str, amount: int) -> None:
    """Set the stock of a product. Call it in a block of `atomic`."""
    Product.objects.update_or_create(name=name, defaults={"stock": amount})
    append(Event.new("ProductStocked", [Entity("Product", name, {"stock": amount})]))


def place(order_id: UUID, name: str, quantity: int) -> int:
    """Store an order, and take its quantity from the stock. Return what is left.

    If another request takes from the same product meanwhile, this one runs again. The id comes
    from the client and is the event's too, so an order that comes twice is a `DuplicateEvent`.
    """

    def run() -> int:
        order = Entity("Order", str(order_id), {"product": name, "quantity": quantity})
        append(Event.new("OrderPlaced", [order], id=order_id))  # first: it ends a second request
        product = Product.objects.select_for_update().get(name=name)  # here, not before the call
        if product.stock < quantity:
            raise SoldOut
        product.stock -= quantity
        product.save(update_fields=["stock"])
        Order.objects.create(id=order_id, product=name, quantity=quantity)
        return product.stock

    return transact(run)
