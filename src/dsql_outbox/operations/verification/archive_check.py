"""Compare the events in an archive file with their rows. No I/O."""

from collections.abc import Iterator, Sequence

from dsql_outbox.outbox.archive.archive_file import ArchiveFile
from dsql_outbox.outbox.archive.archived_event import ArchivedEvent
from dsql_outbox.outbox.receipt import Touched

from .event_check import EventRow, TouchRow, byte_findings
from .finding import Finding, event_finding


def file_finding(facts: ArchiveFile, text: str) -> Finding:
    """A finding about the row of a file, whose content is another one."""
    return Finding("other-file", "outbox_archives", facts.file, text)


def missing_finding(facts: ArchiveFile, event: ArchivedEvent) -> Finding:
    """A finding about a file with an event whose row names no file, or another one."""
    return file_finding(facts, f"event {event.id} is in it, and its row does not say so")


def archived_findings(
    event: ArchivedEvent, row: EventRow, touches: Sequence[Touched], stored: Sequence[TouchRow]
) -> Iterator[Finding]:
    """What is wrong with an event in a file; `stored` are the headers and entities of its `row`."""
    if event.fingerprint != row.fingerprint.hex():
        text = "the fingerprint in the archive file is another one"
        yield event_finding("changed-bytes", event.id, text)
        return
    is_whole = len(event.header_data) == len(touches)
    columns = {
        "touches": event.touches == row.touches,
        "saved_date": event.saved_date.isoformat(timespec="microseconds") == row.saved,
        "headers": is_whole,
    }
    if other := [name for name, is_same in columns.items() if not is_same]:
        text = f"other than the archive file says: {', '.join(other)}"
        yield event_finding("other-content", event.id, text)
    if is_whole:
        yield from byte_findings(row, event.event, touches, stored, event)
