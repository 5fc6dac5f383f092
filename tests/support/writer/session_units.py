"""Units of work in sessions of the caller: a row of its own table and an event, both or neither.

Each unit inserts a row and appends an event, in any order, by `append_to` in a transaction that
the caller commits and tries again, or by `transact`. Some swallow an error and go on, some raise
one of their own, some are interrupted or cancelled twice, and some sessions swallow that of a
COMMIT.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final, Literal

import asyncpg
import psycopg
import psycopg2
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from tests.support.driver_sessions import engine_url, without_options

from dsql_outbox import transact
from dsql_outbox.outbox import Database, Event, OutcomeUnknown, Receipt, is_retryable
from dsql_outbox.outbox.failure import RETRIED, FailureKind, classify, kind_of
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings
from dsql_outbox.writer.attempt.pending import OnDuplicate

from .checked_tables import Outcome
from .interrupted_calls import Interrupt, Interrupted

TRIES: Final = 4
REFUSED: Final = -1
"""A version that `append_to` refuses before it sends anything."""
OWN_ROWS: Final = "caller_rows"
"""The table of the caller. It has no key, so nothing but the unit keeps a row from coming twice."""


@dataclass(frozen=True)
class Way:
    """How a unit of work is run: through what, on which driver."""

    verb: Literal["append_to", "transact", "once", "once_many", "remember"]
    driver: Literal["psycopg", "asyncpg", "psycopg2"]
    through: Literal["connection", "pool", "session", "writer", "inbox"]
    is_async: bool

    @property
    def name(self) -> str:
        """Its name in a tally."""
        kind = "async " if self.is_async else ""
        return f"{self.verb}, {kind}{self.through} of {self.driver}"


WAYS: Final[Sequence[Way]] = [
    Way("append_to", "psycopg", "connection", is_async=False),
    Way("append_to", "psycopg", "connection", is_async=True),
    Way("append_to", "asyncpg", "connection", is_async=True),
    Way("append_to", "psycopg2", "connection", is_async=False),
    Way("append_to", "psycopg", "session", is_async=False),
    Way("append_to", "psycopg", "session", is_async=True),
    Way("append_to", "asyncpg", "session", is_async=True),
    Way("append_to", "psycopg2", "session", is_async=False),
    Way("transact", "psycopg", "writer", is_async=False),
    Way("transact", "psycopg", "writer", is_async=True),
    Way("transact", "psycopg", "pool", is_async=False),
    Way("transact", "psycopg", "pool", is_async=True),
    Way("transact", "psycopg", "session", is_async=False),
    Way("transact", "psycopg", "session", is_async=True),
    Way("transact", "asyncpg", "session", is_async=True),
    Way("transact", "psycopg2", "session", is_async=False),
]


@dataclass(frozen=True)
class Unit:
    """A piece of work of the caller: events, and a row for each."""

    events: Sequence[Event]
    expected: Sequence[int | None]
    row_first: bool
    swallows: bool
    """The caller swallows the error of a statement or an append, and commits."""
    goes_on: bool
    """After an error that it swallows, it also does what is left."""
    raises: bool
    """It raises an error of its own after the last append."""
    cancels: tuple[float, float] | None
    """A task is cancelled so many seconds after an append begins, and again after that."""
    interrupt: int | None
    """A thread is interrupted at this point of a call, of those where a signal could come."""
    persists: bool
    """The caller tries again after a lost connection too: a lost COMMIT must then collide."""

    def acts(self) -> Iterator[str | tuple[Event, int | None]]:
        """The statements that store rows, and the events to append, in order."""
        for event, expected in zip(self.events, self.expected, strict=True):
            row = f"INSERT INTO {OWN_ROWS} VALUES ({event.header.saved_date})"
            both: list[str | tuple[Event, int | None]] = [row, (event, expected)]
            yield from both if self.row_first else reversed(both)


class NotStored(Exception):
    """Another event ended the transaction."""


class ReturnedAnyway(Exception):
    """A unit returned, although the append of this event has failed."""


class LostConnection(Exception):
    """A unit ended, and the pool has not got its connection back."""


class CutShort(Exception):
    """A unit was interrupted or cancelled: it does not know what is stored."""


class HandlerFailed(Exception):
    """An error of the caller's own function."""


Ended = list[Outcome] | Exception
"""How the events of a unit ended, or what it raised."""


@dataclass(frozen=True)
class SessionCall:
    """Units that one caller runs one after the other, on the same engine or pool."""

    way: Way
    units: Sequence[Unit]
    on_duplicate: OnDuplicate
    timeout: float | None
    settings: WriterSettings
    kind: type[Session] = Session
    """The class of its sessions."""

    def run(self, database: Database, url: str) -> list[Ended]:
        """Run the units."""
        if self.way.is_async:
            return asyncio.run(self._run_async(database, url))
        with (
            Writer(database, self.settings) as writer,
            source_of(self.way, url, self.kind) as source,
        ):
            return [self._end_of(writer, source, unit) for unit in self.units]

    def _end_of(self, writer: Writer, source: Any, unit: Unit) -> Ended:
        swallowed: list[BaseException] = []

        def work(session: Any) -> list[Receipt]:
            return do_unit(writer, session, unit, swallowed)

        run: Callable[[], list[Receipt] | Receipt]
        options: dict[str, Any] = {"on_duplicate": self.on_duplicate, "timeout": self.timeout}
        match self.way:
            case Way("append_to"):
                run = partial(commit_alone, source, work, unit, swallowed)
            case Way(through="writer"):
                run = partial(writer.transact, lambda run: work(run.connection), **options)
            case _:
                run = partial(transact, writer, source, work, **options)
        try:
            with nullcontext() if unit.interrupt is None else Interrupted(unit.interrupt, []):
                ended: Ended = outcomes_of(run(), unit)
        except Exception as error:  # noqa: BLE001 - it is compared with the tables
            ended = error
        except Interrupt:
            ended = CutShort()
        return LostConnection() if getattr(source, "lent", 0) else ended

    async def _run_async(self, database: Database, url: str) -> list[Ended]:
        async with (
            AsyncWriter(database, self.settings) as writer,
            async_source(self.way, url, self.kind) as source,
        ):
            # Each is a task of its own, which it may cancel.
            return [
                await asyncio.create_task(self._async_end_of(writer, source, unit))
                for unit in self.units
            ]

    async def _async_end_of(self, writer: AsyncWriter, source: Any, unit: Unit) -> Ended:
        swallowed: list[BaseException] = []
        cancel_soon = CancelSoon(unit)

        async def work(session: Any) -> list[Receipt]:
            return await do_unit_async(writer, session, unit, swallowed, cancel_soon)

        run: Awaitable[list[Receipt] | Receipt]
        options: dict[str, Any] = {"on_duplicate": self.on_duplicate, "timeout": self.timeout}
        match self.way:
            case Way("append_to"):
                run = commit_alone_async(source, work, unit, swallowed, self.timeout)
            case Way(through="writer"):
                run = writer.transact(lambda run: work(run.connection), **options)
            case _:
                run = transact(writer, source, work, **options)
        try:
            ended: Ended = outcomes_of(await run, unit)
        except Exception as error:  # noqa: BLE001 - it is compared with the tables
            ended = error
        except asyncio.CancelledError:
            ended = CutShort()
        cancel_soon.stop()
        return LostConnection() if getattr(source, "lent", 0) else ended


class CancelSoon:
    """Cancels the task that made it twice, soon after its first call."""

    def __init__(self, unit: Unit) -> None:
        self._delays, self._task = unit.cancels, asyncio.current_task()
        self._timers: list[asyncio.TimerHandle] = []

    def __call__(self) -> None:
        if self._delays is None or self._timers:
            return
        assert self._task is not None
        later = asyncio.get_running_loop().call_later
        first, second = self._delays
        self._timers = [later(when, self._task.cancel) for when in (first, first + second)]

    def stop(self) -> None:
        for timer in self._timers:
            timer.cancel()


def random_units(
    events: Sequence[Event], expected: Sequence[int | None], random: Random
) -> Sequence[Unit]:
    """Cut the events of a caller into units: one for each, or one for all."""
    size = random.choice([1, len(events)])
    versions = [REFUSED if random.random() < 0.12 else each for each in expected]
    ends = Random(random.random())  # of its own, so the rest of a seed stays as it was
    return [
        Unit(
            events[start : start + size],
            versions[start : start + size],
            row_first=random.random() < 0.5,
            swallows=random.random() < 0.3 or ends.random() < 0.3,
            persists=random.random() < 0.6,
            goes_on=ends.random() < 0.5,
            raises=ends.random() < 0.1,
            cancels=_random_cancels(ends) if ends.random() < 0.4 else None,
            interrupt=ends.randrange(ends.choice([40, 400, 1500])) if ends.random() < 0.4 else None,
        )
        for start in range(0, len(events), size)
    ]


def _random_cancels(random: Random) -> tuple[float, float]:
    return random.choice([0, 0.001, 0.003, 0.01, 0.05]), random.choice([0, 0.001, 0.003, 0.01])


def outcomes_of(done: list[Receipt] | Receipt, unit: Unit) -> list[Outcome]:
    """How the events of a unit ended: a receipt is of another call that stored its first event."""
    is_of_another = isinstance(done, Receipt)
    receipts = [done] if isinstance(done, Receipt) else done
    left = NotStored() if is_of_another else ReturnedAnyway()
    return [*receipts, *[left] * (len(unit.events) - len(receipts))]


# --- what a unit does ------------------------------------------------------------------------


def do_unit(
    writer: Writer, session: Any, unit: Unit, swallowed: list[BaseException]
) -> list[Receipt]:
    receipts: list[Receipt] = []
    swallowed.clear()
    for act in unit.acts():
        try:
            if isinstance(act, tuple):
                event, expected = act
                receipts.append(writer.append_to(session, event, expected_version=expected))
            elif isinstance(session, Session):
                session.execute(text(act))
            else:
                session.cursor().execute(act)
        except (Exception, Interrupt) as error:
            if not _is_swallowed(error, act, unit):
                raise
            swallowed.append(error)
            if not _goes_on(session, act, unit):
                break
    if unit.raises:
        raise HandlerFailed
    return receipts


def _is_swallowed(error: BaseException, act: object, unit: Unit) -> bool:
    """Only an append promises that nothing commits after an interrupt or a cancellation."""
    return unit.swallows and (isinstance(error, Exception) or isinstance(act, tuple))


def _goes_on(session: Any, act: object, unit: Unit) -> bool:
    """A session whose own statement found no connection would begin anew, without that row."""
    begins_anew = isinstance(session, (Session, AsyncSession)) and isinstance(act, str)
    return unit.goes_on and not begins_anew


async def do_unit_async(
    writer: AsyncWriter,
    session: Any,
    unit: Unit,
    swallowed: list[BaseException],
    cancel_soon: Callable[[], None],
) -> list[Receipt]:
    receipts: list[Receipt] = []
    swallowed.clear()
    for act in unit.acts():
        try:
            if isinstance(act, tuple):
                event, expected = act
                cancel_soon()
                receipts.append(await writer.append_to(session, event, expected_version=expected))
            else:
                await session.execute(text(act) if isinstance(session, AsyncSession) else act)
        except (Exception, asyncio.CancelledError) as error:
            if not _is_swallowed(error, act, unit):
                raise
            swallowed.append(error)
            if not _goes_on(session, act, unit):
                break
    if unit.raises:
        raise HandlerFailed
    return receipts


# --- the caller's own transaction, and its own retries ---------------------------------------


class _Attempts:
    """The attempts of a caller, as docs/sqlalchemy.md says: with a limit and the same events."""

    def __init__(self, unit: Unit, swallowed: list[BaseException]) -> None:
        self._unit, self._swallowed = unit, swallowed
        self._left = TRIES
        self._is_in_doubt = False
        self.is_committing = False

    def end(self) -> None:
        """Raise what the unit swallowed: its COMMIT was a rollback."""
        if self._swallowed:
            raise self._swallowed[0]

    def judge(self, error: BaseException) -> None:
        """Return if the caller tries again."""
        may_be_stored = self.is_committing
        if self._swallowed:  # the transaction has failed, so its COMMIT stored nothing
            error, may_be_stored = self._swallowed[0], False
        if not isinstance(error, Exception):
            raise error
        if may_be_stored and classify(error, sent=True).kind is FailureKind.IN_DOUBT:
            self._is_in_doubt = True
        self._left -= 1
        persists = self._unit.persists and kind_of(error) in RETRIED
        if not self._left or not (persists or is_retryable(error)):
            raise OutcomeUnknown(self._unit.events[0].id) if self._is_in_doubt else error
        self._swallowed.clear()
        self.is_committing = False


def commit_alone(
    open_session: Callable[[], Any],
    work: Callable[[Any], list[Receipt]],
    unit: Unit,
    swallowed: list[BaseException],
) -> list[Receipt]:
    attempts = _Attempts(unit, swallowed)
    while True:
        try:
            session = open_session()
        except Exception as error:  # noqa: BLE001 - judged
            attempts.judge(error)
            continue
        try:
            receipts = work(session)
            attempts.is_committing = True
            session.commit()
            attempts.end()
        except Exception as error:  # noqa: BLE001 - judged
            attempts.judge(error)
        else:
            return receipts
        finally:
            with suppress(Exception):
                session.close()


async def commit_alone_async(
    open_session: Callable[[], Awaitable[tuple[Any, Any]]],
    work: Callable[[Any], Awaitable[list[Receipt]]],
    unit: Unit,
    swallowed: list[BaseException],
    timeout: float | None,
) -> list[Receipt]:
    attempts = _Attempts(unit, swallowed)
    while True:
        session: Any = None
        try:
            async with asyncio.timeout(timeout):
                session, commit = await open_session()
                receipts = await work(session)
                attempts.is_committing = True
                await commit()
            attempts.end()
        except Exception as error:  # noqa: BLE001 - judged
            attempts.judge(error)
        else:
            return receipts
        finally:
            if session is not None:
                with suppress(Exception):
                    await session.close()


# --- where sessions come from ----------------------------------------------------------------


class Lending(ConnectionPool):
    """A pool that counts what it has lent."""

    lent = 0

    def getconn(self, timeout: float | None = None) -> psycopg.Connection[Any]:
        connection = super().getconn(timeout)
        self.lent += 1
        return connection

    def putconn(self, conn: psycopg.Connection[Any]) -> None:
        self.lent -= 1
        super().putconn(conn)


class AsyncLending(AsyncConnectionPool):
    """The same for asyncio."""

    lent = 0

    async def getconn(self, timeout: float | None = None) -> psycopg.AsyncConnection[Any]:
        connection = await super().getconn(timeout)
        self.lent += 1
        return connection

    async def putconn(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.lent -= 1
        await super().putconn(conn)


@contextmanager
def source_of(way: Way, url: str, kind: type[Session]) -> Iterator[Any]:
    """A pool or a sessionmaker, or a function that connects."""
    match way.through:
        case "pool":
            with Lending(url, min_size=0, max_size=2, timeout=2, open=True) as pool:
                yield pool
        case "session":
            engine = create_engine(engine_url(url, way.driver), pool_size=2)
            yield sessionmaker(engine, class_=kind)
            engine.dispose()
        case "connection":
            connect: Any = psycopg.connect if way.driver == "psycopg" else psycopg2.connect
            yield lambda: connect(url)
        case "writer" | "inbox":
            yield None


@asynccontextmanager
async def async_source(way: Way, url: str, kind: type[Session]) -> AsyncIterator[Any]:
    """A pool or a sessionmaker for `transact`; else a function: a session, and its commit."""
    match way.through:
        case "pool":
            pool = AsyncLending(url, min_size=0, max_size=2, timeout=2, open=False)
            async with pool:
                yield pool
        case "session":
            engine = create_async_engine(engine_url(url, way.driver), pool_size=2)
            sessions = async_sessionmaker(engine, sync_session_class=kind)

            async def begin() -> tuple[AsyncSession, Any]:
                session = sessions()
                return session, session.commit

            yield begin if way.verb in {"append_to", "remember"} else sessions
            await engine.dispose()
        case "writer" | "inbox":
            yield None
        case "connection" if way.driver == "psycopg":

            async def connect() -> tuple[Any, Any]:
                connection = await psycopg.AsyncConnection.connect(url)
                return connection, connection.commit

            yield connect
        case "connection":

            async def start() -> tuple[Any, Any]:
                connection: Any = await asyncpg.connect(without_options(url))
                transaction = connection.transaction()
                try:
                    await transaction.start()
                except BaseException:
                    connection.terminate()
                    raise
                return connection, transaction.commit

            yield start
