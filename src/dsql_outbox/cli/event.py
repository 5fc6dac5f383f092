"""The command `event`: where an event is, or the last events of an entity."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import anyio
import click
import msgspec

from dsql_outbox.operations.jaeger_page import require_base_url, trace_page, traces_page
from dsql_outbox.operations.messages import Messages, messages_of
from dsql_outbox.operations.records import (
    EntityRecord,
    EventRecord,
    Records,
    ReplayRecord,
    VersionRecord,
)
from dsql_outbox.operations.selection import Selection
from dsql_outbox.operations.undelivered import UndeliveredMessage
from dsql_outbox.operations.whereabouts import Finding, shown_time
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.message import parse_subject_key, subject_key

from .database_options import with_database
from .filters import json_option
from .options import option
from .output import (
    aligned,
    counted,
    json_line,
    one_line,
    say,
    say_folded,
    say_wrapped,
    with_first_place,
)
from .signals import READ_ONLY

_VERSIONS: Final = 10


class Found(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """All that the database knows of an event: of a forgotten one, its messages."""

    id: UUID
    event: EventRecord | None
    findings: tuple[Finding, ...]
    replays: tuple[ReplayRecord, ...] = ()
    trace_id: str | None = None
    jaeger: str | None = None


class FoundEntity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An entity without its state, and its last versions, each with its undelivered messages."""

    entity: str
    version: int
    shard: int
    versions: tuple[tuple[VersionRecord, Sequence[UndeliveredMessage]], ...]


@click.command(
    epilog="""\b
Examples:
  dsql-outbox event 5f0c6a1e-6c3e-4a0a-9f43-2d8c1a5b7e90
  dsql-outbox event Loan/LOAN-7

The exit code is 1 if nothing is stored under that id or key."""
)
@click.argument("wanted", metavar="ID|TYPE/ID")
@option("--jaeger", metavar="URL", help="The base URL of Jaeger 2, to print a link to the trace.")
@json_option
@with_database(READ_ONLY, duty="reader")
def event(*, wanted: str, jaeger: str | None, as_json: bool, database: Database) -> None:
    """Say where an event is: when it was stored, and what became of its messages.

    For each target it says whether the message waits and behind which other one, fails and with
    which error, is a dead letter, or has left the outbox, and which command helps. With TYPE/ID it
    shows the last versions of an entity and the event of each. Payloads are not shown.
    """
    base = None if jaeger is None else require_base_url(jaeger)
    try:
        event_id = UUID(wanted)
    except ValueError:
        anyio.run(_show_entity, database, _key(wanted), as_json)
        return
    found = anyio.run(_find, database, event_id, base)
    json_line(found) if as_json else _show(found)


def _key(text: str) -> tuple[str, str]:
    try:
        return parse_subject_key(text)
    except SettingsError:
        raise click.UsageError(
            f"{text!r} is neither the id of an event nor TYPE/ID, as in Loan/LOAN-7"
        ) from None


async def _find(database: Database, event_id: UUID, jaeger: str | None) -> Found:
    async with Records(database) as records:
        record = await records.event(event_id)
        findings = await records.findings(event_id, links_trace=jaeger is not None)
        replays = await records.replays(event_id)
        if not findings:
            raise click.ClickException(
                _unknown(event_id, database, forgotten_at=await records.forgotten_at())
            )
    trace_id = next((each.trace_id for each in findings if each.trace_id), None)
    page = None
    if jaeger is not None:
        page = trace_page(jaeger, trace_id) if trace_id else traces_page(jaeger, event_id)
    return Found(
        id=event_id,
        event=record,
        findings=findings,
        replays=replays,
        trace_id=trace_id,
        jaeger=page,
    )


def _unknown(event_id: UUID, database: Database, *, forgotten_at: datetime | None) -> str:
    """The error for an event that is not stored; `forgotten_at` is the last run of `forget`."""
    name = database.endpoint.dbname
    place = f"database {name}" if name else f"the database at {database.address}"
    last = "no run that deleted any is recorded"
    if forgotten_at is not None:
        last = f"its last run that deleted any was at {shown_time(forgotten_at)}"
    return (
        f"no event {event_id} is stored in schema {database.schema} of {place}: it was never "
        f"committed there, or `forget` has deleted it ({last})"
    )


def _show(found: Found) -> None:
    """Print all that is known of an event."""
    if found.event is None:
        say(f"event {found.id} is no longer stored, but a message of it is")
    else:
        about = found.event
        say(f"{about.type} of {subject_key(*about.subject)} at version {about.subject_version}")
        aligned([(f"  {name}", one_line(text)) for name, text in _facts(about)])
    for each in found.findings:
        say()
        say_wrapped(each.text)
        if each.error:
            say_folded(f"  {with_first_place(each.error)}")
        for effect, command in each.commands:
            say(f"  {effect}:")
            say(f"    {command}")
    for replay in found.replays:
        reason = f": {replay.reason}" if replay.reason else ""
        say()
        say_wrapped(
            f"Replay {replay.number} was made by {replay.replayed_by} at "
            f"{shown_time(replay.replayed_at)}{one_line(reason)}"
        )
    if found.trace_id or found.jaeger:
        say()
        say(f"Its trace: {found.jaeger or found.trace_id}")


def _facts(about: EventRecord) -> Iterable[tuple[str, str]]:
    yield "event", str(about.id)
    yield "stored", f"{shown_time(about.saved_date)}, {about.payload_bytes:,} bytes"
    yield "by write", str(about.write_id)
    yield "topic", about.topic
    for entity in about.touches:
        if (entity.entity_type, entity.entity_id) != about.subject:
            yield (
                "touched",
                f"{subject_key(entity.entity_type, entity.entity_id)} at version "
                + str(entity.version),
            )
    if about.erased_at is not None:
        yield "erased", f"in part, at {shown_time(about.erased_at)}"


async def _show_entity(database: Database, names: tuple[str, str], as_json: bool) -> None:
    key = subject_key(*names)
    async with Records(database) as records, Messages(database) as messages:
        entity = await records.entity(*names)
        if entity is None:
            raise click.ClickException(
                f"no event has touched entity {key} of schema {database.schema}"
            )
        versions = await records.history(*names, entity.version, rows=_VERSIONS)
        kept = await messages_of(messages, [each.event_id for each in versions])
        waiting = await messages.page(Selection(subject=key))
    if as_json:
        found = tuple((each, kept[each.event_id]) for each in versions)
        json_line(
            FoundEntity(entity=key, version=entity.version, shard=entity.shard, versions=found)
        )
        return
    _show_versions(key, entity, [(each, kept[each.event_id]) for each in versions])
    if waiting.found:
        more = "at least " if waiting.after else ""
        number = counted(len(waiting.found), "message")
        say()
        say_wrapped(f"Not delivered: {more}{number} of this subject. The first of them:")
        for each in waiting.found[:3]:
            say(f"  dsql-outbox event {each.event_id}")


def _show_versions(
    key: str,
    entity: EntityRecord,
    versions: Sequence[tuple[VersionRecord, Sequence[UndeliveredMessage]]],
) -> None:
    say(f"{key} is at version {entity.version} since {shown_time(entity.updated_at)}")
    rows = [
        (
            str(each.version),
            str(each.event_id),
            one_line(each.type) + ("" if each.is_subject else " (touched)"),
            ", ".join(dict.fromkeys(message.state for message in kept)) or "left the outbox",
        )
        for each, kept in versions
    ]
    say()
    aligned([("version", "event", "type", "now"), *rows])
    if entity.version > len(versions):
        say(f"and {counted(entity.version - len(versions), 'earlier version')}")
