"""The rebuild of a read model: the function of `apply`, called with the stored events."""

import inspect
from collections.abc import AsyncGenerator
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, Self
from uuid import UUID

import msgspec
import psycopg

from dsql_outbox.outbox import (
    CONFLICTS,
    DEFAULT_SOURCE,
    OUTAGES,
    AsyncConnection,
    Database,
    Message,
    PublisherRuns,
    SettingsError,
    kind_of,
    require_source,
)
from dsql_outbox.publisher.operator.event_pages import START, Place
from dsql_outbox.publisher.operator.replay import stored_headers
from dsql_outbox.publisher.outbox_rows import Fault, OutboxRow, read_headers
from dsql_outbox.publisher.relay.applier import Apply
from dsql_outbox.publisher.session import FunctionFailed, Operator, OperatorTransaction

PAGE: Final = 50
"""Touches per transaction, as the relay applies them: the function changes rows too."""

_NOT_STORED: Final = ("previousposition", "leaseepoch")
"""The headers of a message that a stored event does not have."""


_ASYNC: Final = "apply must be an async function: async def apply(connection, message)"


class RebuildProgress(msgspec.Struct, frozen=True):
    """How far a rebuild is.

    `read` is the number of rows that were read to find the events, out of about `total`
    (None: not known), and `applied` the number of events that were applied. `place` is
    where another run continues. It is None at the start, and if the outcome of the last
    transaction is not known.
    """

    read: int = 0
    applied: int = 0
    total: int | None = None
    place: str | None = None


class Rebuild(Operator):
    """Calls a function for each stored event that was applied before, subject by subject.

    Empty the tables of the read model before, and stop every publisher. Events that
    wait in the outbox are left out, and so are dead letters: the publisher applies the
    former when it runs again. So no event is lost or applied twice.

    `function` is that of ``Publisher(apply=..)``. Up to 50 events share a transaction,
    which is retried after a conflict. The messages have no `previousposition`, no
    `leaseepoch` and no trace context. `source` must equal the writers' setting.

    One object is one run: call `run` once. `stop` ends it after the transaction in
    progress. The constructor does no I/O. Raises `TypeError` unless the function is async.
    """

    def __init__(
        self, database: Database, function: Apply, *, source: str = DEFAULT_SOURCE
    ) -> None:
        super().__init__(database)
        if not inspect.iscoroutinefunction(function):
            raise TypeError(_ASYNC)
        require_source("Rebuild", source)
        self._function = function
        self._source = source
        self._progress = RebuildProgress()
        self._tried = 0
        """The rows of the last page that was read."""
        self._is_settled = True
        self._is_stopping = False

    @property
    def progress(self) -> RebuildProgress:
        """How far the run is."""
        if self._is_settled:
            return self._progress
        return msgspec.structs.replace(self._progress, place=None)

    def stop(self) -> None:
        """Begin no further transaction; the generator then ends."""
        self._is_stopping = True

    async def run(self, *, after: str | None = None) -> AsyncGenerator[RebuildProgress]:
        """Apply all events, and yield the progress after each transaction.

        `after` is the `place` of another run; `SettingsError` for any other text. Raises
        `PublisherRuns` if a publisher runs, or has run since the rebuild began, and the
        errors of the function.
        """
        place = _Place.start() if after is None else _Place.parse(after)
        total = await self._estimate()
        rows, is_over = PAGE, False
        while not is_over and not self._is_stopping:
            page = await self._page(place, rows)
            if page is None:
                rows = self._tried // 2
                continue
            seen, applied, place = page
            done = self._progress
            self._progress = RebuildProgress(
                done.read + seen, done.applied + applied, total, str(place)
            )
            yield self._progress
            is_over, rows = seen < rows, min(PAGE, 2 * rows)
        if is_over:
            await self._require_calm(place)

    async def _page(self, after: "_Place", number: int) -> tuple[int, int, "_Place"] | None:
        """Apply a page in one transaction. Return its rows, its events, and the place after it.

        None: nothing was applied, and a smaller page may be.
        """

        async def work(transaction: OperatorTransaction) -> tuple[int, int, _Place]:
            rows = await transaction.read("rebuild_page", _EventRow, after.parameters(number))
            place = _reached(rows[0], after)
            self._tried = rows[0].seen
            messages = [self._message(row.id, row) for row in rows if row.id is not None]
            for message in messages:
                await transaction.call(partial(_apply, self._function, message))
            return rows[0].seen, len(messages), place

        self._is_settled, self._tried = False, 0
        failure: Exception
        try:
            page = await self._session.transaction(work)
        except Exception as error:  # noqa: BLE001 - raised below, without its wrapper
            failure = error
        else:
            self._is_settled = True
            return page
        self._is_settled = not _may_be_committed(failure)
        if self._tried > 1 and _is_of_messages(failure):
            return None
        raise failure.error if isinstance(failure, FunctionFailed) else failure

    async def _require_calm(self, place: "_Place") -> None:
        self._is_settled = False
        rows = await self._session.read("rebuild_page", _EventRow, place.parameters(PAGE))
        _reached(rows[0], place)
        self._is_settled = True

    def _message(self, event_id: UUID, event: "_EventRow") -> Message:
        own_headers = {} if event.headers is None else read_headers(event.headers).by_name
        ours = stored_headers(
            event_id, event.event_type, event.created_date, event.touches, self._source
        )
        if ours.fault is not None:
            raise SettingsError(f"event {event_id} is not a valid message: {ours.fault}")
        headers = own_headers | ours.by_name
        row = OutboxRow(
            shard=event.shard,
            position=event.position,
            event_id=str(event_id),
            previous_position=0,
            subject_type=event.subject_type,
            subject_id=event.subject_id,
            subject_version=event.subject_version,
            topic=event.topic,
            headers=msgspec.json.encode(headers).decode(),
            payload=event.payload,
            created_us=int(event.saved_date.timestamp() * 1_000_000),
            predecessor=False,
        )
        made = row.message(attempt=1, picked_up_ns=0, epoch=0)
        if isinstance(made, Fault):
            raise SettingsError(f"event {event_id} is not a valid message: {made.reason}")
        for name in _NOT_STORED:
            del made.headers[name]
        return made

    async def _estimate(self) -> int | None:
        asked = {"schema": self._session.schema, "table": "event_headers"}
        rows = await self._session.rows("rows_estimate", asked)
        return rows[0][0] if rows and rows[0][0] >= 0 else None


class _EventRow(NamedTuple):
    """A row of ``rebuild_page``.

    The columns of `Place` are NULL if the page has no rows, those from `id` on if it has no event.
    """

    seen: int
    entity_type: str
    entity_id: str
    entity_version: int
    epochs: int
    held: int
    id: UUID | None
    event_type: str
    created_date: datetime | None
    saved_date: datetime
    touches: str
    shard: int
    position: int
    subject_type: str
    subject_id: str
    subject_version: int
    topic: str
    payload: str
    headers: str | None


class _Place(NamedTuple):
    """A place among the stored events, and the sum of the epochs of all leases; None: any."""

    at: Place
    epochs: int | None

    @classmethod
    def start(cls) -> Self:
        """The place before every event."""
        return cls(START, None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``TYPE/ID@VERSION:EPOCHS``. Raises `SettingsError` for any other text."""
        place, _, epochs = text.rpartition(":")
        if not epochs.isdecimal():
            raise SettingsError(f"{text!r} is not a place that a rebuild printed")
        return cls(Place.parse(place), int(epochs))

    def parameters(self, rows: int) -> dict[str, Any]:
        """The parameters of ``rebuild_page``."""
        at = self.at
        entity = {"entity_type": at.entity_type, "entity_id": at.entity_id}
        return entity | {"after": at.version, "rows": rows}

    def __str__(self) -> str:
        return f"{self.at}:{self.epochs}"


async def _apply(function: Apply, message: Message, connection: AsyncConnection) -> None:
    """Call the function. An error of its own names the event."""
    try:
        await function(connection, message)
    except Exception as error:
        error.add_note(f"the function to apply failed at event {message.event_id}")
        raise


def _is_of_messages(failure: Exception) -> bool:
    """Return whether fewer messages in a transaction may help."""
    return isinstance(failure, FunctionFailed) or kind_of(failure) in CONFLICTS


def _may_be_committed(error: Exception) -> bool:
    """Return whether to begin again: after a disturbance, or when COMMIT may have been lost."""
    if isinstance(error, PublisherRuns):
        return error.is_disturbed
    return isinstance(error, psycopg.Error) and kind_of(error) in OUTAGES


def _reached(row: _EventRow, before: _Place) -> _Place:
    """Return the place that a page reached. Raises `PublisherRuns` if one may have run."""
    if row.held or before.epochs not in {None, row.epochs}:
        raise PublisherRuns(is_disturbed=before.epochs is not None)
    at = Place(row.entity_type, row.entity_id, row.entity_version) if row.seen else before.at
    return _Place(at, row.epochs)
