"""Compare the events in an archive file with their rows. No I/O."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from dsql_outbox.outbox.archive.archive_file import ArchiveFile
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.errors import EventTooLarge, InvalidEvent
from dsql_outbox.outbox.event.event_parser import parse_event

from .finding import Finding, event_finding


class ArchivedRow(NamedTuple):
    """A row of ``verify_archived``."""

    id: UUID
    fingerprint: str
    archive: int | None
    touches: str


def file_finding(facts: ArchiveFile, text: str) -> Finding:
    """A finding about the row of a file, whose content is another one."""
    return Finding("other-file", "outbox_archives", facts.file, text)


def archive_findings(
    facts: ArchiveFile, events: Sequence[ArchivedEvent], rows: Iterable[ArchivedRow]
) -> Iterator[Finding]:
    """What is wrong with the events in a file; `rows` are those that are stored of them."""
    stored = {row.id: row for row in rows}
    for event in events:
        yield from _event_findings(facts, event, stored)


def _event_findings(
    facts: ArchiveFile, event: ArchivedEvent, stored: Mapping[UUID, ArchivedRow]
) -> Iterator[Finding]:
    row = stored.get(event.id)
    if row is None or row.archive != facts.number:
        yield file_finding(facts, f"event {event.id} is in it, and its row does not say so")
        return
    try:
        parsed = parse_event(event.event)
    except (InvalidEvent, EventTooLarge):  # its text may quote the event
        yield event_finding("unreadable", event.id, f"its bytes in {facts.file} are no event")
        return
    if not parsed.fingerprint.hex() == event.fingerprint == row.fingerprint:
        text = f"the fingerprint of its bytes in {facts.file} is another one"
        yield event_finding("changed-bytes", event.id, text)
        return
    headers = tuple(touch.header for touch in parsed.touches)
    if parsed.id != event.id or event.touches != row.touches or event.header_data != headers:
        text = f"its touches or headers in {facts.file} are others"
        yield event_finding("other-content", event.id, text)
