"""Put messages into the outbox again: a retry of dead letters, and a replay of events."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Generic, Literal, Protocol, TypeVar
from uuid import UUID

import msgspec

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.schema.outbox_rows import REPLAY_HEADER
from dsql_outbox.schema.session import Session, SessionTransaction

from .pages import Step, count_fitting
from .replay_positions import Candidate, Placed, Positions
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

ResultStatus = Literal[
    "retried", "replayed", "planned", "waiting", "missing", "unreadable", "untaken"
]
"""The result for a message.

``retried`` or ``replayed``, by the method, or ``planned`` in a dry run. The others mean
that nothing was done: ``waiting`` if a message of the event is in the outbox already, ``missing``
if the event, its bytes or the dead letter do not exist, ``unreadable`` if the stored headers are
invalid, ``untaken`` if the target does not take the type of its subject.
"""


class MessageResult(msgspec.Struct, frozen=True, rename="camel"):
    """The result of `Messages.retry` or `Messages.replay` for one message.

    `replay` is the number of the replay, which the dedupe id ends with: ``/r<number>``.
    `position` is the new position in the outbox, in microseconds. Both are None
    if there is no new row; `position` is also None in a dry run. `type`, `topic` and `shard`
    are those of the message. `at` is when the event was saved, when its message was created
    or given up. An event that is ``missing`` has none of them.
    """

    event_id: UUID
    status: ResultStatus
    subject: str | None = None
    replay: int | None = None
    position: int | None = None
    type: str | None = None
    topic: str | None = None
    shard: int | None = None
    at: datetime | None = None


class RequeueProgress(msgspec.Struct, frozen=True, rename="camel"):
    """How many messages of a retry or a replay have each result; `planned` in a dry run."""

    planned: int = 0
    waiting: int = 0
    missing: int = 0
    unreadable: int = 0
    untaken: int = 0

    @property
    def left_alone(self) -> int:
        """How many messages were selected but left alone."""
        return self.waiting + self.missing + self.unreadable + self.untaken


class Source(Protocol[K_contra]):
    """Where the messages come from; a key of type `K` names one of them.

    `done` is the status of one that is in the outbox anew.
    """

    done: ResultStatus

    async def candidates(
        self, transaction: SessionTransaction, keys: Sequence[K_contra], /
    ) -> list[Candidate | UUID]:
        """Read the candidates of these keys, in order.

        A key without a candidate yields the event's id.
        """
        ...

    async def put(
        self, transaction: SessionTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        """Insert the outbox rows; `columns` are the parameters common to both sources."""
        ...


class Requeue(Generic[K]):
    """The transactions of a retry or a replay: at most `MAX_ROWS` events and `MAX_BYTES` each."""

    def __init__(
        self, session: Session, source: Source[K], entry: OperationEntry, *, dry_run: bool
    ) -> None:
        self._session = session
        self._source = source
        self._entry = entry
        self._dry_run = dry_run
        self._positions = Positions()

    async def change(self, keys: Sequence[K], most: int) -> Step[MessageResult]:
        """Send the first of these messages again, `most` at most, in one transaction."""
        keys = keys[:most]
        ids = {"event_ids": array_literal(key.event_id for key in keys)}

        async def work(
            transaction: SessionTransaction,
        ) -> tuple[int, Sequence[Placed], Sequence[MessageResult]]:
            if not self._dry_run:
                # No event is forgotten between the read and the row that names it.
                await transaction.fetch_rows("event_lock", ids)
            asked = await self._source.candidates(transaction, keys)
            found = _within_bytes(asked)
            chosen, told = _choose(found)
            placed = self._positions.place(chosen)
            if placed and not self._dry_run:
                await self._put(transaction, placed)
            return len(found), placed, [*told, *map(self._tell, placed)]

        settled, placed, told = await self._session.transaction(work)
        if self._dry_run:
            return Step(settled, 0, told)
        self._positions.keep(placed)
        if placed:
            self._entry.is_written = True
        return Step(settled, len(placed), told)

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
        }
        await self._source.put(transaction, placed, columns)

    def _tell(self, placed: Placed) -> MessageResult:
        position = None if self._dry_run else placed.position
        status: ResultStatus = "planned" if self._dry_run else self._source.done
        return _told(placed.candidate, status, placed.number, position)


def _told(
    candidate: Candidate,
    status: ResultStatus,
    number: int | None = None,
    position: int | None = None,
) -> MessageResult:
    return MessageResult(
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
    return found[: count_fitting(sizes, rows=MAX_ROWS, bytes_=MAX_BYTES)]


def _choose(found: Sequence[Candidate | UUID]) -> tuple[list[Candidate], list[MessageResult]]:
    """Split into the candidates to replay and the results for the others."""
    chosen: dict[UUID, Candidate] = {}
    left: list[MessageResult] = []
    for each in found:
        if isinstance(each, UUID):
            left.append(MessageResult(each, "missing"))
        elif not each.is_taken:
            left.append(_told(each, "untaken"))
        elif not each.can_be_sent:
            left.append(_told(each, "unreadable"))
        elif each.waiting or each.event_id in chosen:
            left.append(_told(each, "waiting"))
        else:
            chosen[each.event_id] = each
    return list(chosen.values()), left
