"""Put messages into the outbox again: a retry of dead letters, and a replay of events."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from time import monotonic
from typing import Final, Generic, Literal, Protocol, TypeVar
from uuid import UUID

import anyio
import msgspec

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.schema.outbox_rows import REPLAY_HEADER
from dsql_outbox.schema.session import Session, SessionTransaction

from .pace import Pace
from .pages import fitting
from .replay_positions import Candidate, Placed, Places
from .tool import OperationEntry


class EventKey(Protocol):
    """Names a message of an event."""

    @property
    def event_id(self) -> UUID:
        """The id of the event."""
        ...


K = TypeVar("K", bound=EventKey)
K_contra = TypeVar("K_contra", contravariant=True)

_encode: Final = msgspec.json.Encoder().encode

MAX_ROWS: Final = 500
"""Most events of one transaction. Each changes up to three rows, and Aurora DSQL allows 3,000."""

MAX_BYTES: Final = 4 << 20
"""Most bytes of payload and headers in one transaction.

Aurora DSQL allows 10 MiB of changes. A replayed dead letter counts twice: it is
inserted into the outbox and deleted from the dead letters.
"""

HandledStatus = Literal[
    "retried", "replayed", "planned", "waiting", "missing", "unreadable", "untaken"
]
"""The result for a message.

``retried`` or ``replayed``, by the method, or ``planned`` in a dry run. The others mean
that nothing was done: ``waiting`` if a message of the event is in the outbox already, ``missing``
if the event, its bytes or the dead letter do not exist, ``unreadable`` if the stored headers are
invalid, ``untaken`` if the target does not take the type of its subject.
"""


class Handled(msgspec.Struct, frozen=True, rename="camel"):
    """The result of `Messages.retry` or `Messages.replay` for one message.

    `replay` is the number of the replay, which the dedupe id ``<event id>/r<number>``
    contains. `position` is the new position in the outbox, in microseconds. Both are None
    if there is no new row; `position` is also None in a dry run. `type`, `topic` and `shard`
    are those of the message. `at` is when the event was saved, when its message was created
    or given up. An event that is ``missing`` has none of them.
    """

    event_id: UUID
    status: HandledStatus
    subject: str | None = None
    replay: int | None = None
    position: int | None = None
    type: str | None = None
    topic: str | None = None
    shard: int | None = None
    at: datetime | None = None


class Source(Protocol[K_contra]):
    """Where the messages come from; a key of type `K` names one of them.

    `done` is the status of one that is in the outbox anew.
    """

    done: HandledStatus

    async def candidates(
        self, transaction: SessionTransaction, keys: Sequence[K_contra], /
    ) -> tuple[list[Candidate | UUID], int]:
        """Read the candidates of these keys, in order, and the database's time.

        A key without a candidate yields the event's id. The time is in microseconds
        since the Unix epoch.
        """
        ...

    async def put(
        self, transaction: SessionTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        """Insert the outbox rows; `columns` are the parameters common to both sources."""
        ...


class _RequeuedPage(msgspec.Struct, frozen=True):
    """The result of one transaction, which settled the first `keys` keys."""

    keys: int
    placed: Sequence[Placed]
    told: Sequence[Handled]


class Requeue(Generic[K]):
    """One run of a retry or a replay, in transactions of `MAX_ROWS` events and `MAX_BYTES` at most.

    `last` is the key up to which all are settled, or None before the first transaction.
    """

    def __init__(
        self,
        session: Session,
        source: Source[K],
        entry: OperationEntry,
        *,
        pace: Pace,
        dry_run: bool,
    ) -> None:
        self._session = session
        self._source = source
        self._entry = entry
        self._pace = pace
        self._dry_run = dry_run
        self._places = Places()
        self._stopping = anyio.Event()
        self.last: K | None = None

    async def run(self, keys: Sequence[K]) -> AsyncGenerator[Handled]:
        """Replay in the order of `keys`; yields the result for each event after its transaction."""
        done = 0
        while done < len(keys):
            with anyio.move_on_after(self._pace.wait(monotonic())):
                await self._stopping.wait()
            if self._stopping.is_set():
                return
            began = monotonic()
            step = await self._step(keys[done : done + self._pace.most(MAX_ROWS)])
            if not self._dry_run:
                self._places.keep(step.placed)
                self._pace.spend(len(step.placed), began, monotonic())
            done += step.keys
            self.last = keys[done - 1]
            for each in step.told:
                yield each

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Begin no further transaction."""
        self._stopping.set()

    async def _step(self, keys: Sequence[K]) -> _RequeuedPage:
        ids = {"event_ids": array_literal(key.event_id for key in keys)}

        async def work(transaction: SessionTransaction) -> _RequeuedPage:
            if not self._dry_run:
                # No archive takes the bytes of an event between the read and the row that names it.
                await transaction.fetch_rows("event_lock", ids)
            asked, now_us = await self._source.candidates(transaction, keys)
            found = _within_bytes(asked)
            chosen, told = _choose(found)
            placed = self._places.place(chosen, now_us)
            if placed and not self._dry_run:
                await self._put(transaction, placed)
            told += [self._tell(each) for each in placed]
            return _RequeuedPage(len(found), placed, told)

        done = await self._session.transaction(work)
        if done.placed and not self._dry_run:
            self._entry.is_written = True
        return done

    async def _put(self, transaction: SessionTransaction, placed: Sequence[Placed]) -> None:
        event_ids = array_literal(each.candidate.event_id for each in placed)
        positions = array_literal(each.position for each in placed)
        record = {
            "event_ids": event_ids,
            "numbers": array_literal(each.number for each in placed),
            "positions": positions,
            "reason": self._entry.reason,
        }
        if not self._entry.is_written:
            await self._entry.write_in(transaction)
        await transaction.change("replay_record", record, len(placed))
        columns = {
            "event_ids": event_ids,
            "positions": positions,
            "previous_positions": array_literal(each.previous_position for each in placed),
            "headers": array_literal(map(_headers, placed)),
            "payloads": array_literal(each.candidate.payload for each in placed),
        }
        await self._source.put(transaction, placed, columns)

    def _tell(self, placed: Placed) -> Handled:
        position = None if self._dry_run else placed.position
        status: HandledStatus = "planned" if self._dry_run else self._source.done
        return _told(placed.candidate, status, placed.number, position)


def _told(
    candidate: Candidate,
    status: HandledStatus,
    number: int | None = None,
    position: int | None = None,
) -> Handled:
    return Handled(
        candidate.event_id,
        status,
        candidate.key,
        number,
        position,
        candidate.type,
        candidate.topic,
        candidate.shard,
        candidate.at,
    )


def _headers(placed: Placed) -> str:
    return _encode(placed.candidate.headers | {REPLAY_HEADER: str(placed.number)}).decode()


def _within_bytes(found: Sequence[Candidate | UUID]) -> Sequence[Candidate | UUID]:
    """The first candidates that fit into one transaction, at least one.

    Headers count too. They name every entity, percent-encoded, so they can be larger
    than the payload.
    """
    sizes = (
        (1, each.size + len(_encode(each.headers)) if isinstance(each, Candidate) else 0)
        for each in found
    )
    return found[: fitting(sizes, rows=MAX_ROWS, bytes_=MAX_BYTES)]


def _choose(found: Sequence[Candidate | UUID]) -> tuple[list[Candidate], list[Handled]]:
    """Split into the candidates to replay and the results for the others."""
    chosen: dict[UUID, Candidate] = {}
    left: list[Handled] = []
    for each in found:
        if isinstance(each, UUID):
            left.append(Handled(each, "missing"))
        elif not each.is_taken:
            left.append(_told(each, "untaken"))
        elif not each.can_be_sent:
            left.append(_told(each, "unreadable"))
        elif each.waiting or each.event_id in chosen:
            left.append(_told(each, "waiting"))
        else:
            chosen[each.event_id] = each
    return list(chosen.values()), left
