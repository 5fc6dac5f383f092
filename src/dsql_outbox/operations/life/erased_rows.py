"""The rows that a transaction of an erasure changes: events, and what else holds their bytes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from dsql_outbox.operations.pages import Size, TooLarge
from dsql_outbox.outbox.database.array_literals import array_literal, plain_array
from dsql_outbox.outbox.event.erasure import EntityErasure
from dsql_outbox.schema.session import SessionTransaction

from .erased_event import (
    ChangedEvent,
    EventRow,
    changed_event,
    headers_without,
    hides_nothing,
)
from .job import MAX_BYTES, MAX_ROWS

ERASED: Final = "erased"
"""The text that replaces an error text."""


class Notice(NamedTuple):
    """The event that says that an entity was erased: what is older than `version` is erased."""

    erased_at: str
    event_id: UUID
    version: int
    is_finished: bool


class StreamRow(NamedTuple):
    """A row of ``erase_stream``."""

    entity_version: int
    event_id: UUID
    event_size: int

    def changes(self) -> Size:
        """What it is known to change: the rest is seen in the transaction (see `TooLarge`)."""
        return 1, self.event_size


class _MessageRow(NamedTuple):
    """A row of ``erase_messages``."""

    shard: int
    position: int
    event_id: UUID
    headers: str
    bytes: int
    is_other: bool
    error: str | None

    @property
    def has_error(self) -> bool:
        """Whether there is an error text to replace."""
        return self.error not in (None, ERASED)


class _LetterRow(NamedTuple):
    """A row of ``erase_letters``."""

    event_id: UUID
    died_at: str
    headers: str
    error: str
    is_other: bool


class EraseBatch:
    """The events of one transaction, and what else holds their bytes."""

    def __init__(
        self, erasure: EntityErasure, rows: Sequence[StreamRow], notice: Notice | None
    ) -> None:
        self.rows = rows
        self._erasure = erasure
        self._notice = notice
        self._begin()

    def _begin(self) -> None:
        """Count from zero: a transaction may run again."""
        self.events = self.messages = self.dead_letters = 0
        self._changes = 0
        self._bytes = 0

    async def look(self, transaction: SessionTransaction) -> None:
        """Count what would be changed."""
        self._begin()
        changed, concerned = await self._read(transaction)
        self.events = len(changed)
        messages, letters = await self._named(transaction, concerned)
        by_id = {each.before.id: each for each in changed}
        self.messages = len([*self._messages(messages, by_id)])
        self.dead_letters = len([*self._letters(letters, by_id)])

    async def change(self, transaction: SessionTransaction) -> None:
        """Change the events first: their locks keep others from making rows that name them."""
        self._begin()
        changed, concerned = await self._read(transaction)
        by_id = {each.before.id: each for each in changed}
        self.events = len(changed)
        if changed:
            await transaction.change(
                "erase_events_change", self._event_columns(changed), len(changed)
            )
            await self._change_headers(transaction, changed)
        await self._change_named(transaction, concerned, by_id)
        self._require_room(len(self.rows))

    def _require_room(self, events: int) -> None:
        """Raise `TooLarge` if the transaction has changed more than one may, but not for one event.

        An event that has so much of its own could never be erased.
        """
        if events > 1 and (self._changes > MAX_ROWS or self._bytes > MAX_BYTES):
            raise TooLarge

    async def _change_named(
        self,
        transaction: SessionTransaction,
        concerned: Sequence[UUID],
        by_id: Mapping[UUID, ChangedEvent],
    ) -> None:
        """Change what names events, after their rows."""
        if by_id:
            self._add(await transaction.execute("erase_fills", {}), 0)
        messages, letters = await self._named(transaction, concerned)
        await self._change_messages(transaction, messages, by_id)
        found = [*self._letters(letters, by_id)]
        self._add(len(found), sum(len(headers) for _, headers in found))
        self.dead_letters = len(found)
        if found:
            columns = {
                "event_ids": plain_array(row.event_id for row, _ in found),
                "died_at": array_literal(row.died_at for row, _ in found),
                "headers": array_literal(headers for _, headers in found),
                "error": ERASED,
            }
            await transaction.change("erase_letters_change", columns, len(found))

    async def _read(self, transaction: SessionTransaction) -> tuple[list[ChangedEvent], list[UUID]]:
        """The events to change, and the ids of those whose messages are looked at."""
        ids = {"event_ids": plain_array(row.event_id for row in self.rows)}
        rows = await transaction.fetch("erase_events", EventRow, ids)
        found = [(row, changed_event(self._erasure, row)) for row in rows]
        concerned = [row.id for row, each in found if each is not None or row.is_erased]
        return [each for _, each in found if each is not None], concerned

    async def _named(
        self, transaction: SessionTransaction, concerned: Sequence[UUID]
    ) -> tuple[Sequence[_MessageRow], Sequence[_LetterRow]]:
        if not concerned:
            return (), ()
        ids = {"event_ids": plain_array(concerned)}
        messages = await transaction.fetch("erase_messages", _MessageRow, ids)
        return messages, await transaction.fetch("erase_letters", _LetterRow, ids)

    def _messages(
        self, rows: Sequence[_MessageRow], changed: Mapping[UUID, ChangedEvent]
    ) -> list[tuple[_MessageRow, str]]:
        """The messages to change, with their headers."""
        found: list[tuple[_MessageRow, str]] = []
        for row in rows:
            headers = headers_without(row.headers, _hides(changed, row.event_id))
            if row.is_other or row.has_error or headers != row.headers or row.event_id in changed:
                found.append((row, headers))
        return found

    def _letters(
        self, rows: Sequence[_LetterRow], changed: Mapping[UUID, ChangedEvent]
    ) -> list[tuple[_LetterRow, str]]:
        found: list[tuple[_LetterRow, str]] = []
        for row in rows:
            headers = headers_without(row.headers, _hides(changed, row.event_id))
            if row.is_other or row.error != ERASED or headers != row.headers:
                found.append((row, headers))
        return found

    async def _change_messages(
        self,
        transaction: SessionTransaction,
        rows: Sequence[_MessageRow],
        changed: Mapping[UUID, ChangedEvent],
    ) -> None:
        found = self._messages(rows, changed)
        self.messages = len(found)
        errors = [row for row, _ in found if row.has_error]
        found = [
            (row, headers)
            for row, headers in found
            if row.is_other or headers != row.headers or row.event_id in changed
        ]
        self._add(len(found), sum(row.bytes + len(headers) for row, headers in found))
        if found:
            keys = _message_keys([row for row, _ in found])
            columns = keys | {"headers": array_literal(headers for _, headers in found)}
            # Fewer rows: a publisher has settled one meanwhile, perhaps as a dead letter.
            await transaction.change("erase_messages_change", columns, len(found))
        self._add(len(errors), 0)
        if errors:
            columns = _message_keys(errors) | {"error": ERASED}
            await transaction.change("erase_errors_change", columns, len(errors))

    async def _change_headers(
        self, transaction: SessionTransaction, changed: Sequence[ChangedEvent]
    ) -> None:
        found = [(each.before.id, *pair) for each in changed for pair in each.header_data]
        self._add(len(found), sum(len(data) for _, _, data in found))
        if found:
            columns = {
                "types": array_literal(touch.entity_type for _, touch, _ in found),
                "ids": array_literal(touch.entity_id for _, touch, _ in found),
                "versions": plain_array(touch.version for _, touch, _ in found),
                "event_ids": plain_array(event_id for event_id, _, _ in found),
                "data": array_literal(data for _, _, data in found),
            }
            await transaction.change("erase_headers_change", columns, len(found))

    def _event_columns(self, changed: Sequence[ChangedEvent]) -> dict[str, str]:
        assert self._notice is not None  # noqa: S101 - `look` changes nothing
        self._add(len(changed), sum(len(each.data.encode()) for each in changed))
        return {
            "event_ids": plain_array(each.before.id for each in changed),
            "before": plain_array(each.before.fingerprint for each in changed),
            "data": array_literal(each.data for each in changed),
            "fingerprints": plain_array(each.fingerprint for each in changed),
            "headers": array_literal(each.headers for each in changed),
            "erased_at": self._notice.erased_at,
        }

    def _add(self, rows: int, size: int) -> None:
        self._changes += rows
        self._bytes += size


def _hides(changed: Mapping[UUID, ChangedEvent], event_id: UUID) -> Callable[[str], bool]:
    return changed[event_id].hides if event_id in changed else hides_nothing


def _message_keys(rows: Sequence[_MessageRow]) -> dict[str, str]:
    return {
        "shards": plain_array(row.shard for row in rows),
        "positions": plain_array(row.position for row in rows),
        "event_ids": plain_array(row.event_id for row in rows),
    }
