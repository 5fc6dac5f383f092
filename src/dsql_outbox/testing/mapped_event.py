"""The message of an event, and what a map makes of it, without a database and a broker."""

from datetime import UTC, datetime
from uuid import uuid4

from dsql_outbox.outbox.event.event_parser import EventSource, parse_event
from dsql_outbox.outbox.message import Message, listed_key
from dsql_outbox.publisher.message_map import MessageMap, Refuse, wire_message
from dsql_outbox.schema.outbox_rows import Fault, OutboxRow
from dsql_outbox.writer.settings import WriterSettings
from dsql_outbox.writer.statement.parameters import prepare
from dsql_outbox.writer.topic_template import topic_of


def message_of(event: EventSource, settings: WriterSettings | None = None) -> Message:
    """Return the message of an event as a publisher gives it to a map.

    It is the first one of each of its entities. `settings` are those of the writer. Raises
    `InvalidEvent`.
    """
    chosen = settings or WriterSettings()
    parsed = parse_event(event)
    topic = topic_of(parsed, chosen.topic)
    prepared = prepare(parsed, uuid4().hex, topic, chosen.source, {})
    subject = parsed.touches[0]
    listed = ",".join(
        f"{listed_key(each.entity_type, each.entity_id)}@1" for each in parsed.touches
    )
    now = datetime.now(UTC)
    time = "" if prepared.created else f'","time":"{now.isoformat(timespec="microseconds")}'
    now_us = round(now.timestamp() * 1_000_000)
    row = OutboxRow(
        shard=0,
        position=now_us,
        event_id=prepared.id,
        previous_position=0,
        subject_type=subject.entity_type,
        subject_id=subject.entity_id,
        subject_version=1,
        topic=topic,
        headers=f'{prepared.headers}{listed}{time}"}}',
        payload=parsed.data,
        created_us=now_us,
        predecessor=False,
    )
    made = row.message(attempt=1, picked_up_ns=now_us * 1_000, epoch=1)
    if isinstance(made, Fault):
        raise AssertionError(made.reason)  # noqa: TRY004 - a defect
    return made


def mapped(function: MessageMap, event: EventSource) -> Message:
    """Return the message of an event in its wire form, with payload, content type and headers.

    Compare the payload with the bytes of a file that you have checked:
    ``assert mapped(to_message, event).payload == golden.read_bytes()``. Raises `MapFailed` for
    an error of the map, and `AssertionError` if it skips or refuses the message.
    """
    made = wire_message(function, message_of(event))
    if isinstance(made, Message):
        return made
    what = (
        f"refuses the message: {made.reason}" if isinstance(made, Refuse) else "skips the message"
    )
    raise AssertionError(f"the map {what}")
