"""Messages of Amazon SQS, as the sink ``sqs://`` writes them."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dsql_outbox.outbox import TRACE_HEADERS, UnreadableMessage

from .received import Received, received, required

_event: Final = msgspec.json.Decoder(dict[str, str])


def from_sqs(record: Mapping[str, Any]) -> Received:
    """Read a record of an event of AWS Lambda, or a message of boto3's `receive_message`.

    `receive_message` returns attributes only with ``MessageAttributeNames=["All"]``.
    Raises `UnreadableMessage` if a publisher did not send it.
    """
    wire = dict(_wire(record))
    try:
        own = _event.decode(required(wire, "cloudevent"))
    except msgspec.DecodeError:
        raise UnreadableMessage("cloudevent", "it is no JSON object of texts") from None
    own |= {name: wire[name] for name in TRACE_HEADERS if name in wire}
    body: str = record.get("body") or record.get("Body") or ""
    return received(
        own,
        dedupe_id=required(wire, "dedupe-id"),
        topic=wire.get("topic", ""),
        data=body.encode(),
    )


def _wire(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the attributes. Lambda writes their names in lower case, boto3 in upper case."""
    found: Mapping[str, Any] = (
        record.get("messageAttributes") or record.get("MessageAttributes") or {}
    )
    texts = [
        (name, each.get("stringValue", each.get("StringValue"))) for name, each in found.items()
    ]
    return [(name, text) for name, text in texts if text is not None]
