"""A map with the keys and headers of an existing contract, and the payload of the event."""

from dsql_outbox import Message, WireForm


def own_keys(message: Message) -> WireForm:
    """Give a message the id of its entity as the key; every 64 of them share one."""
    _, _, number = message.key.rpartition("-")
    key = f"K-{int(number) % 64}"
    headers = {"__TypeId__": message.headers["type"], "correlation-id": str(message.event_id)}
    return WireForm(message.payload, "application/json", headers, key=key)
