"""The map: what RabbitMQ gets of each event. The publisher calls it; the application does not."""

import json

from dsql_outbox import Message


def to_message(message: Message) -> object:
    """Make the body of a message."""
    (order, *_) = json.loads(message.payload)["entities"]
    return {"what": message.headers["type"], "order": order["id"], "total": order["total"]}
