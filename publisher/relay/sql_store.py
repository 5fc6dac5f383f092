"""The statements of the relay on the outbox and its failures."""

from collections.abc import Awaitable, Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from dsql_outbox.outbox.database.array_literals import array_literal, plain_array
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.database.fork import OneProcess
from dsql_outbox.outbox.errors import SchemaError
from dsql_outbox.outbox.failure import NO_SUCH_FORM
from dsql_outbox.outbox.settings import DEFAULT_TARGET, MAX_TRANSACTION_ROWS, TARGET_SHARDS
from dsql_outbox.schema import session
from dsql_outbox.schema.backlog import has_backlog
from dsql_outbox.schema.burial import Burial, Letter
from dsql_outbox.schema.outbox_rows import ROW_COLUMNS, RawRow, RowId, row_keys
from dsql_outbox.schema.session import Session, SessionTransaction
from dsql_outbox.schema.target_rows import TargetKind, TargetRow, require_target

from .store import (
    MAX_FAILURES,
    Failure,
    PassedOver,
    Range,
    RangeRead,
    Reading,
    RowPlace,
    StoredFailure,
    StoredWait,
    SubjectName,
)

FAILURES: Final = 10_000
"""The failures that one statement of a take-over reads."""


T = TypeVar("T")


class _FailureRow(NamedTuple):
    """A row of ``failure_list``: the columns after the first four are NULL without a failure."""

    seen: int
    last_shard: int
    last_position: int
    last_id: str
    shard: int
    position: int
    event_id: str
    attempts: int
    subject_type: str | None
    subject_id: str
    seconds: float
    size: int

    def failure(self) -> StoredFailure:
        """The failure of this row."""
        row = RowId(self.shard, self.position, self.event_id)
        subject = SubjectName(self.subject_type or "", self.subject_id)
        return StoredFailure(row, subject, self.attempts, self.seconds, self.size)


class _WaitRow(NamedTuple):
    """A row of ``failure_find``."""

    shard: int
    position: int
    event_id: str
    attempts: int
    seconds: float


class _RowGone(Exception):
    """A row was settled by another publisher."""


class SqlStore:
    """The tables of a database; see `Store` for the methods.

    Reads, changes, `is_done` and each message that is applied alone have a connection, so none
    waits for another. The last two open theirs at the first use; that of `is_done` is closed
    when it is cancelled.
    `statements` counts the calls. All methods raise the driver's errors, `SchemaError` if the
    tables are missing or outdated, and `MissingRight`.
    """

    def __init__(
        self, database: Database, target: str = DEFAULT_TARGET, kind: TargetKind | None = None
    ) -> None:
        self._database = database
        self._target = target
        self._kind: TargetKind | None = kind
        self.first_shard = 0
        self._reads = Session(database, needs_primary=True, duty="publisher")
        self._changes = Session(database, needs_primary=True, duty="publisher")
        self._looks = Session(database, duty="publisher")
        self._asides: list[Session] = []
        """Those of messages that were applied alone, and that no such message uses now."""
        self._process = OneProcess("a publisher's connections")
        self._burial = Burial(self._changes)
        self._is_refused = False
        self.statements = 0

    async def open(self) -> None:
        """Connect. Raises `SchemaError` if there are no shards.

        Raises `SettingsError` if there is no such target, or it is of another kind.
        """
        ((shards,),) = await self._fetch_rows("shard_count", {})
        for each in (self._reads, self._changes, self._looks):
            each.do_not_wait_for_cluster()
        if not shards:
            raise SchemaError(
                f"schema {self._reads.schema} has no shards: run `dsql-outbox schema apply`"
            )
        targets = [TargetRow(*row) for row in await self._fetch_rows("target_known", {})]
        self.first_shard = require_target(targets, self._target, self._kind).first_shard

    async def close(self) -> None:
        """Close the connections."""
        for each in (self._reads, self._changes, self._looks, *self._asides):
            await each.close()

    async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
        """See `Store.read`."""
        self._require()
        if not self._is_refused:
            with suppress(*NO_SUCH_FORM):  # no plan that is out of date: `pipeline` knows these
                parameters = read_parameters(ranges, passed)
                found = await self._reads.fetch_rows_by_index("outbox_read", parameters)
                return reading_of(len(ranges), found)
            self._is_refused = True
        return await self._reads.transaction(partial(_read_plainly, ranges, passed))

    async def delete(self, rows: Collection[RowId]) -> int:
        """See `Store.delete`."""
        return await self._execute("outbox_delete", row_keys(rows))

    async def record(self, failures: Collection[Failure]) -> None:
        """See `Store.record`."""
        await self._execute("failure_record", failure_parameters(failures))

    async def forget(self, rows: Collection[RowId]) -> None:
        """See `Store.forget`."""
        await self._execute("failure_forget", row_keys(rows))

    async def bury(self, letters: Collection[Letter]) -> None:
        """See `Store.bury`."""
        self._require()
        await self._burial.bury(letters)

    async def apply(
        self,
        rows: Collection[RowId],
        calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,
    ) -> bool:
        """See `Store.apply`. The number of deleted rows is the fence against other publishers."""
        self._require()
        first = next(iter(rows))
        seconds = session.CALL_TIMEOUT if is_aside else session.SHARED_CALL_TIMEOUT

        async def run(transaction: SessionTransaction) -> None:
            if await transaction.execute("outbox_delete", row_keys(rows)) != len(rows):
                raise _RowGone
            for call in calls:
                await transaction.call(call, seconds)

        try:
            if is_aside:
                with self._aside() as aside:
                    await aside.transaction(run, deleted=first)
            else:
                await self._changes.transaction(run, deleted=first)
        except _RowGone:
            return False
        return True

    @contextmanager
    def _aside(self) -> Generator[Session]:
        """A session that nobody else uses meanwhile. It stays for the next one."""
        if not self._asides:
            self._asides.append(Session(self._database, needs_primary=True, duty="publisher"))
            self._asides[0].do_not_wait_for_cluster()
        aside = self._asides.pop()
        try:
            yield aside
        finally:
            self._asides.append(aside)

    async def stored_failures(self, shards: Collection[int]) -> Sequence[StoredFailure]:
        """See `Store.stored_failures`. One statement reads `FAILURES` rows at most."""
        failures: list[StoredFailure] = []
        parameters: dict[str, Any] = {
            "shards": plain_array(shards),
            "shard": -1 << 31,
            "position": -1 << 63,
            "event_id": UUID(int=0),
        }
        seen = FAILURES
        while seen == FAILURES and len(failures) < MAX_FAILURES:
            found = await self._fetch("failure_list", _FailureRow, parameters, rows=FAILURES)
            seen = found[0].seen
            parameters |= {
                "shard": found[0].last_shard,
                "position": found[0].last_position,
                "event_id": found[0].last_id,
            }
            failures += (row.failure() for row in found if row.subject_type is not None)
        return failures

    async def stored_waits(self, rows: Collection[RowId]) -> Mapping[RowId, StoredWait]:
        """See `Store.stored_waits`."""
        return {
            RowId(row.shard, row.position, row.event_id): StoredWait(row.attempts, row.seconds)
            for row in await self._fetch("failure_find", _WaitRow, row_keys(rows))
        }

    async def paused_topics(self) -> Mapping[str, str]:
        """See `Store.paused_topics`."""
        found = await self._fetch_rows("topic_list", {"target": self._target})
        return {topic: reason for topic, reason in found}  # noqa: C416 - rows are no pairs to mypy

    async def is_done(self, shards: Collection[int] | None) -> bool:
        """Whether no message waits, except for those that wait for an operator.

        `shards` are those that count; None: all of the target.
        """
        self._require()
        last = self.first_shard + TARGET_SHARDS - 1
        return not await has_backlog(self._looks, shards, first=self.first_shard, last=last)

    async def ring(self) -> None:
        """Ring the doorbell of the publishers of this schema, as a writer does."""
        self._require()
        await self._looks.fetch_rows("doorbell_ring", {"schema": self._looks.schema})

    async def sweep(self) -> None:
        """Delete failures whose message no longer exists, as many as one transaction may change."""
        await self._execute("failure_sweep", {}, limit=MAX_TRANSACTION_ROWS)

    async def _fetch(
        self, name: str, kind: type[T], parameters: dict[str, Any], **literals: int
    ) -> Sequence[T]:
        self._require()
        return await self._reads.fetch(name, kind, parameters, **literals)

    async def _fetch_rows(
        self, name: str, parameters: dict[str, Any], **literals: int
    ) -> Sequence[Sequence[Any]]:
        self._require()
        return await self._reads.fetch_rows(name, parameters, **literals)

    async def _execute(self, name: str, parameters: dict[str, Any], **literals: int) -> int:
        self._require()
        return await self._changes.execute(name, parameters, **literals)

    def _require(self) -> None:
        self._process.require()
        self.statements += 1


async def _read_plainly(
    ranges: Sequence[Range], passed: PassedOver, transaction: SessionTransaction
) -> Reading:
    """Read each range by a statement of its own. On Aurora DSQL they share a snapshot."""
    found: list[Sequence[Any]] = []
    for parameters in range_parameters(ranges, passed):
        found += await transaction.fetch_rows("outbox_read_range", parameters)
    return reading_of(len(ranges), found)


def read_parameters(ranges: Sequence[Range], passed: PassedOver) -> dict[str, str]:
    """Return the parameters of ``outbox_read``."""
    return {
        "numbers": plain_array(range(len(ranges))),
        "shards": plain_array(each.shard for each in ranges),
        "positions": plain_array(each.after.position for each in ranges),
        "event_ids": plain_array(each.after.event_id for each in ranges),
        "rows": plain_array(each.rows for each in ranges),
        "sizes": plain_array(each.size for each in ranges),
        "visits": plain_array(each.visits for each in ranges),
        "untils": plain_array(each.until for each in ranges),
        **_passed_parameters(passed),
    }


def range_parameters(ranges: Sequence[Range], passed: PassedOver) -> Iterator[dict[str, Any]]:
    """Return the parameters of ``outbox_read_range`` for each range."""
    over = _passed_parameters(passed)
    for number, each in enumerate(ranges):
        place = {"shard": each.shard, **each.after._asdict()}
        limits = {
            "rows": each.rows,
            "size": each.size,
            "visits": each.visits,
            "until": each.until,
        }
        yield {"number": number, **place, **limits, **over}


def failure_parameters(failures: Collection[Failure]) -> dict[str, Any]:
    """Return the parameters of ``failure_record``."""
    return {
        **row_keys([failure.row for failure in failures]),
        "errors": array_literal(failure.error for failure in failures),
        "attempts": plain_array(failure.attempts for failure in failures),
        "seconds": plain_array(
            "infinity" if failure.seconds is None else failure.seconds for failure in failures
        ),
    }


def _passed_parameters(passed: PassedOver) -> dict[str, str]:
    return {
        "passed": _json({_look_up_key(name): at for name, at in passed.subjects.items()}),
        "topics": _json(dict.fromkeys(passed.topics, 1)),
    }


def reading_of(number: int, found: Sequence[RawRow]) -> Reading:
    """Sort the rows of ``outbox_read``, in any order, by their ranges; one of each is its end."""
    rows: list[list[RawRow]] = [[] for _ in range(number)]
    ends: list[tuple[RowPlace, bool]] = [(RowPlace(0, ""), False)] * number
    now = took = 0
    for result in found:
        if result[-1] is None:
            of: int = result[0]
            rows[of].append(result)
        else:
            now, took = _TIMES(result)
            ends[result[0]] = RowPlace(*_PLACE(result)), result[-1]
    for each in rows:
        each.sort(key=_PLACE)
    found_ranges = [RangeRead(each, *end) for each, end in zip(rows, ends, strict=True)]
    return Reading(now, found_ranges, (took or 0) / 1_000_000)


def _columns(*names: str) -> "itemgetter[Any]":
    return itemgetter(*(1 + ROW_COLUMNS.index(name) for name in names))


_PLACE: Final = _columns("position", "event_id")
_TIMES: Final = _columns("created_us", "previous_position")
"""Of the end of a range: the database's clock, and how long the read took."""


def _look_up_key(name: SubjectName) -> str:
    """The key under which ``outbox_read`` looks a subject up; it differs for any two subjects."""
    return f"{len(name.type)} {name.type}{name.id}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
