"""The message of an event as it is stored, and as the map of a publisher makes it."""

from base64 import b64encode
from uuid import UUID

import click
import msgspec

from dsql_outbox.cli.exit_codes import FAILED
from dsql_outbox.cli.output import aligned, json_line, say
from dsql_outbox.cli.tool_call import called
from dsql_outbox.operations.records import Records
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.message_map import (
    MapFailed,
    MessageMap,
    Refuse,
    open_map,
    wire_message,
)
from dsql_outbox.schema.outbox_rows import Fault


class Form(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A form of a message.

    `headers` are the attributes, and `wire_headers` those that a map added under their names. A
    payload that is no UTF-8 is in `base64`; a deletion has neither.
    """

    topic: str
    key: str
    content_type: str | None
    headers: dict[str, str]
    wire_headers: dict[str, str] = {}
    properties: dict[str, object] = {}
    payload: str | None = None
    base64: str | None = None

    @classmethod
    def of(cls, message: Message) -> "Form":
        """The form that a message has."""
        payload = base64 = content_type = None
        if not message.is_deletion:
            content_type = message.content_type
            try:
                payload = message.payload.decode()
            except UnicodeDecodeError:
                base64 = b64encode(message.payload).decode()
        return cls(
            message.topic,
            message.broker_key,
            content_type,
            message.headers,
            dict(message.wire_headers),
            _properties(message),
            payload,
            base64,
        )

    def fields(self, name: str) -> list[tuple[str, str]]:
        """Pairs of name and value for people."""
        payload = self.base64 if self.payload is None else self.payload
        return [
            (name, self.content_type or "deletion"),
            ("  topic", self.topic),
            ("  key", self.key),
            *((f"  attribute {key}", value) for key, value in sorted(self.headers.items())),
            *((f"  header {key}", value) for key, value in self.wire_headers.items()),
            *((f"  property {key}", str(value)) for key, value in self.properties.items()),
            ("  payload" if self.base64 is None else "  payload, base64", payload or ""),
        ]


def _properties(message: Message) -> dict[str, object]:
    """Those that a map set, without None."""
    given = {} if message.properties is None else msgspec.structs.asdict(message.properties)
    return {name: value for name, value in given.items() if value is not None}


class Forms(msgspec.Struct, frozen=True, omit_defaults=True):
    """Both forms of a message; without `mapped` it is skipped or `refused`."""

    stored: Form
    mapped: Form | None = None
    skipped: bool = False
    refused: str | None = None


def show_mapped(database: Database, event_id: UUID, function: MessageMap, *, as_json: bool) -> None:
    """Print the stored and the mapped form of an event's message. Raises what a command raises."""
    message = called(Records(database), lambda tool: tool.message(event_id))
    if message is None:
        raise click.ClickException(f"no event has the id {event_id}")
    if isinstance(message, Fault):
        raise click.ClickException(f"event {event_id} has no message: {message.reason}")
    stored = Form.of(message)
    open_map(function)
    try:
        made = wire_message(function, message)
    except MapFailed as failure:
        raise click.ClickException(failure.report) from None
    refused = made.reason if isinstance(made, Refuse) else None
    mapped = Form.of(made) if isinstance(made, Message) else None
    if as_json:
        json_line(Forms(stored, mapped, skipped=made is None, refused=refused))
    else:
        aligned(stored.fields("stored"))
        say()
        if mapped is not None:
            aligned(mapped.fields("mapped"))
        else:
            say("mapped  skipped" if refused is None else f"mapped  refused: {refused}")
    if refused is not None:
        raise click.exceptions.Exit(FAILED)
