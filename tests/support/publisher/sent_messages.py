"""Messages as the relay makes them, and what it does until they are delivered."""

from collections.abc import Sequence
from uuid import uuid4

import anyio
from tests.support.brokers.endless_lease import in_waves

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.sinks import Delivered, Sink


def new_message(
    key: str = "Loan/1",
    payload: bytes = b'{"n":1}',
    topic: str = "events.LoanCreated",
    **headers: str,
) -> Message:
    """A message with an id of its own."""
    event_id = uuid4()
    attributes = {
        "specversion": "1.0",
        "id": str(event_id),
        "source": "/tests",
        "type": "LoanCreated",
        "datacontenttype": "application/json",
        "subject": key,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    return Message(event_id, topic, key, attributes | headers, payload, str(event_id), 0, 0)


async def deliver(sink: Sink, messages: Sequence[Message]) -> None:
    """Publish until all is delivered; fails after 10 seconds."""
    rest = list(messages)
    with anyio.fail_after(10):
        while rest:
            outcomes = (await in_waves(sink, rest)).outcomes
            found = zip(rest, outcomes, strict=True)
            rest = [message for message, outcome in found if outcome != Delivered()]
            await anyio.sleep(0.01 if rest else 0)
