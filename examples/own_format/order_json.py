"""A contract in JSON: ``{"order_id": "ORD-7", "total": "12.50"}``."""

import json

from dsql_outbox import Message


def to_order(message: Message) -> object:
    """Return what billing gets: one object for each order that was placed, and nothing else."""
    if message.headers["type"] != "OrderPlaced":
        return None
    (order, *_) = json.loads(message.payload)["entities"]
    return {"order_id": order["id"], "total": order["total"]}


def to_order_2(message: Message) -> object:
    """Return the same for the new contract, in which `total` is called `amount`."""
    if message.headers["type"] != "OrderPlaced":
        return None
    (order, *_) = json.loads(message.payload)["entities"]
    return {"order_id": order["id"], "amount": order["total"]}
