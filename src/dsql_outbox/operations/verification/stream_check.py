"""Compare the headers of each entity with each other, and with the entity. No I/O."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from dsql_outbox.operations.stored_event import touches_in
from dsql_outbox.outbox.receipt import Touched

from .finding import Finding, entity_finding, event_finding, header_finding


class HeaderRow(NamedTuple):
    """A row of ``verify_headers``; None where the event or the entity is missing.

    `version` and `last_position` are those of the entity, in its last row and
    behind a gap alone.
    """

    entity_type: str
    entity_id: str
    entity_version: int
    event_id: UUID
    is_stored: bool
    is_subject: bool | None
    subject_version: int | None
    position: int | None
    previous_position: int | None
    touches: str | None
    is_alike: bool | None
    version: int | None
    last_position: int | None
    forgotten: str | None
    is_old: bool | None

    @property
    def touch(self) -> Touched:
        """The entity with its version."""
        return Touched(self.entity_type, self.entity_id, self.entity_version)


class StreamCheck:
    """Follows the headers of all entities in the order of their key, over all pages.

    A page is later than the one before it, so an entity may have grown meanwhile. The row of its
    last header tells both ends: entity and headers of one snapshot. Events that are old enough to
    be forgotten may be missing.
    """

    def __init__(self) -> None:
        self._last: HeaderRow | None = None
        self._position: int | None = 0
        """Of the last event that had the entity as its subject; None if that is not known."""

    def findings(self, rows: Sequence[HeaderRow]) -> Iterator[Finding]:
        """What is wrong with the next headers."""
        for row in rows:
            if self._last is None or self._last[:2] != row[:2]:
                yield from self.end()
                self._last, self._position = None, 0
            yield from self._next(row)
            self._last = row

    def end(self) -> Iterator[Finding]:
        """What is wrong with the last entity: no more headers of it follow."""
        last = self._last
        if last is None:
            return
        if last.version is None:
            text = f"there is no entity with the headers up to version {last.entity_version}"
            yield header_finding("missing-entity", last.touch, text)
        elif last.version < last.entity_version:
            text = f"its version is {last.version}, its last header's {last.entity_version}"
            yield entity_finding("entity-behind", last[:2], text)
        elif last.version == last.entity_version and self._position not in (
            last.last_position,
            None,
        ):
            text = "its position is not that of its last event as subject"
            yield entity_finding("other-position", last[:2], text)

    def _next(self, row: HeaderRow) -> Iterator[Finding]:
        before = 0 if self._last is None else self._last.entity_version
        if row.entity_version != before + 1:
            first, last = before + 1, row.entity_version - 1
            missing = f"version {first} is" if first == last else f"versions {first} to {last} are"
            if not self._may_be_forgotten(row):
                yield header_finding("gap", row.touch, f"{missing} missing before it")
            self._position = None
        if not row.is_stored:
            text = f"there is no event {row.event_id}"
            yield header_finding("missing-event", row.touch, text)
            self._position = None
            return
        if row.is_subject:
            yield from self._next_of_subject(row)
        elif not _lists(row.touches, row.touch):
            text = f"event {row.event_id} has not touched it"
            yield header_finding("other-event", row.touch, text)
            return
        if not row.is_alike:
            text = f"the name, the type or the date is not that of event {row.event_id}"
            yield header_finding("other-content", row.touch, text)

    def _may_be_forgotten(self, row: HeaderRow) -> bool:
        """Whether an event between the last one and this one may have been saved early enough.

        The last one is of an earlier page if another job has begun to forget since.
        """
        if row.forgotten is None:
            return False
        last = self._last
        return last is None or last.is_old is True or last.forgotten != row.forgotten

    def _next_of_subject(self, row: HeaderRow) -> Iterator[Finding]:
        if row.subject_version != row.entity_version:
            text = f"event {row.event_id} is that of version {row.subject_version}"
            yield header_finding("other-event", row.touch, text)
            self._position = None
            return
        if self._position not in (row.previous_position, None):
            text = "the previous position is not that of the subject's event before it"
            yield event_finding("other-position", row.event_id, text)
        elif (row.position or 0) <= (row.previous_position or 0):
            text = "the position is not above the one before it"
            yield event_finding("other-position", row.event_id, text)
        self._position = row.position


def _lists(touches: str | None, touch: Touched) -> bool:
    found = () if touches is None else touches_in(touches)
    return found is None or touch in found  # another form is found with the event
