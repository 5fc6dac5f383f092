"""A contract in JSON: ``{"order_id": "ORD-7", "total": "12.50"}``."""

import json

from dsql_outbox import Message, WireForm


def to_order(message: Message) -> object:
    """Return what billing gets: one object for each order that was placed, and nothing else."""
    if message.headers["type"] != "OrderPlaced":
        return None
    (order, *_) = json.loads(message.payload)["entities"]
    return {"order_id": order["id"], "total": order["total"]}


def to_order_2(message: Message) -> WireForm | None:
    """Return the same for the new contract, in which `total` is called `amount`.

    It has topics of its own on the same broker.
    """
    if message.headers["type"] != "OrderPlaced":
        return None
    (order, *_) = json.loads(message.payload)["entities"]
    form = {"order_id": order["id"], "amount": order["total"]}
    return WireForm(form, topic=f"v2.{message.topic}")
