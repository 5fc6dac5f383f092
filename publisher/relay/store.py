"""The port to the tables of the outbox: the reads and changes of the relay."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import RawRow, RowId


class RowPlace(NamedTuple):
    """A place in a shard: right after the row with this key; `position` in microseconds."""

    position: int
    event_id: str


MAX_FAILURES: Final = 100_000
"""The most failures that a take-over keeps in memory, or a page more."""

HEAD: Final = RowPlace(-(1 << 63), "00000000-0000-0000-0000-000000000000")
"""The place before every possible row, also before invalid positions."""


LAST: Final = RowPlace((1 << 63) - 1, "ffffffff-ffff-ffff-ffff-ffffffffffff")
"""The place after every possible row."""


class Range(NamedTuple):
    """Rows of a shard to read in the order of their keys, from a place on.

    The read looks at `visits` rows at most, and returns at most `rows` of them with at
    most `size` bytes of payload; but it returns the first row in any case. It looks at no
    position after `until`.
    """

    shard: int
    after: RowPlace
    rows: int
    size: int
    visits: int
    until: int = LAST.position


class RangeRead(NamedTuple):
    """The result of a read for one range: rows in the order of their keys.

    `end` is the place up to which all rows were looked at. `is_cut` says that there
    are rows after it in the range, which a limit kept back.
    """

    rows: Sequence[RawRow]
    end: RowPlace
    is_cut: bool


class Reading(NamedTuple):
    """The answer to one read, from one snapshot: `ranges` in the order of the request.

    `now` is the time of the database's clock, in microseconds since the Unix epoch. The server
    took `seconds`, without the way there and back; 0 if it is not known.
    """

    now: int
    ranges: Sequence[RangeRead]
    seconds: float = 0.0


class SubjectName(NamedTuple):
    """The entity that a subject is, as the columns of a row name it."""

    type: str
    id: str


class PassedOver(NamedTuple):
    """The rows that a read looks at but does not return.

    They are the rows of each of `subjects` from a position on, and the rows of `topics`.
    """

    subjects: Mapping[SubjectName, int]
    topics: Collection[str]


class Failure(NamedTuple):
    """A row that failed `attempts` times and waits for `seconds`; None: for an operator."""

    row: RowId
    error: str
    attempts: int
    seconds: float | None


class StoredFailure(NamedTuple):
    """A failure as the database holds it; `seconds` until the next attempt, maybe infinity.

    `size` is the number of bytes of the payload.
    """

    row: RowId
    subject: SubjectName
    attempts: int
    seconds: float
    size: int = 0


class StoredWait(NamedTuple):
    """The attempts of a failed row, and the `seconds` until the next one, maybe infinity."""

    attempts: int
    seconds: float


class Store(Protocol):
    """The statements of the relay.

    Each call is its own transaction. It raises when no answer came in time: the transaction
    may then have run, may still run, or may never run. All of them may be repeated.
    """

    async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
        """Read several ranges from one snapshot."""
        ...

    async def delete(self, rows: Collection[RowId]) -> int:
        """Delete rows that the broker has acknowledged. Returns how many existed."""
        ...

    async def record(self, failures: Collection[Failure]) -> None:
        """Record failures of rows; a row has one failure at most, the newest."""
        ...

    async def forget(self, rows: Collection[RowId]) -> None:
        """Delete the failures of rows that were delivered after all."""
        ...

    async def bury(self, letters: Collection[Letter]) -> None:
        """Move rows to the dead letters; missing rows are left out."""
        ...

    async def apply(
        self,
        rows: Collection[RowId],
        calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,
    ) -> bool:
        """Delete rows and make `calls` in one transaction, which is retried after a conflict.

        If it `is_aside`, it runs beside the other changes, and a call may take `CALL_TIMEOUT`.
        Otherwise they wait for it, and a call may take `SHARED_CALL_TIMEOUT`. Returns False, with
        nothing changed, if one of the rows is missing. Raises `FunctionFailed` if a call failed
        the transaction.
        """
        ...

    async def stored_failures(self, shards: Collection[int]) -> Sequence[StoredFailure]:
        """Read the failures of rows of some shards, `MAX_FAILURES` or a page more at most."""
        ...

    async def stored_waits(self, rows: Collection[RowId]) -> Mapping[RowId, StoredWait]:
        """Read the failures of rows, as far as they are recorded."""
        ...

    async def paused_topics(self) -> Mapping[str, str]:
        """The topics that an operator paused, with the reasons."""
        ...
