"""What the project does."""

from dsql_outbox import Entity, Event
from dsql_outbox.django import append

from .models import Order


def placed(order: Order) -> Event:
    """The event of an order."""
    return Event.new("OrderPlaced", [Entity("Order", str(order.pk), {"item": order.item})])


def place(item: str = "book", using: str = "default") -> Order:
    """Store an order and its event, in the open transaction."""
    order = Order.objects.using(using).create(item=item)
    append(placed(order), using=using)
    return order
