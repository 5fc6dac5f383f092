"""A program: interrupts calls of a writer, and prints as JSON what that left behind.

    python -m tests.support.writer.interrupted_calls points|pool|engine|signals|threads URL [MODULE]
    python -m tests.support.writer.interrupted_calls appends URL WAY [MODULE ..]
    python -m tests.support.writer.interrupted_calls remembers URL [MODULE ..]

It is a process of its own, since it sets the profiler, signal handlers or the functions that start
threads, and since a call that hangs must end with it.
"""

import _thread
import ctypes
import gc
import inspect
import json
import opcode
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import cache, partial
from itertools import count
from pathlib import Path
from time import monotonic, sleep
from types import CodeType, FrameType
from typing import Any, Final, Self

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool
from tests.support.driver_sessions import engine_url

import dsql_outbox
from dsql_outbox import transact
from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database, Entity, Event, OutboxError, Receipt
from dsql_outbox.writer import Transaction, Writer, WriterSettings

NAMES: Final = [("Car", f"CAR-{n}") for n in range(3)]

SETTINGS: Final = WriterSettings(backlog_check=None)

PACKAGE: Final = str(Path(dsql_outbox.__file__).parent)

HERE: Final = str(Path(__file__).parent)

SIGNALS: Final = 400

THREADS: Final = 4

_CLOSING: Final = 3.0  # seconds that a busy server may take to see that a session was closed

_OPEN: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND state LIKE 'idle in transaction%'
"""

_GENERATORS: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

_RESUME: Final = opcode.opmap["RESUME"]


class Interrupt(BaseException):
    """What ends a call from outside."""


@cache
def _instructions(code: CodeType) -> bytes:
    return code.co_code  # which Python makes anew each time


def _goes_on_inside(frame: FrameType) -> bool:
    """Whether a generator is entered only to go on in another one, by `yield from` or `await`.

    Python calls no signal handler there (RESUME with 2 or 3), since the inner one would be dropped
    in the middle.
    """
    if not frame.f_code.co_flags & _GENERATORS:
        return False
    code, at = _instructions(frame.f_code), frame.f_lasti
    found = (code[place + 1] for place in (at, at + 2) if code[place] == _RESUME)
    return any(where & 3 > 1 for where in found)


def call(writer: Writer, **options: Any) -> Receipt:
    """Append an event in the turn of its entities."""
    entities = [Entity(*name, {}) for name in NAMES]

    def function(transaction: Transaction) -> Receipt:
        return transaction.append(Event.new("CarMoved", entities))

    return writer.transact(function, entities=NAMES, **options)


class Interrupted:
    """Raises `Interrupt` at the `point`-th time at which Python could call a signal handler.

    That is when a function begins or goes on, and when one that is written in C has returned.
    """

    def __init__(self, point: int, modules: list[str]) -> None:
        self.point = self._left = point
        self._modules = modules
        self.place = ""
        # CPython 3.11 calls its borrowed reference once more, where a finalizer was interrupted that
        # ran as it made a frame object for the call: without an owner, the process crashes there.
        self._profile = self._look

    def __enter__(self) -> Self:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: FrameType, happened: str, _: object) -> None:
        file = frame.f_code.co_filename
        if self.place or happened not in ("call", "c_return") or not file.startswith(PACKAGE):
            return
        if happened == "call":
            if _goes_on_inside(frame):
                return
            # An interrupt between the caller's line and the first one of ours is the caller's.
            # Python swallows one in a finalizer.
            back = frame.f_back
            if back and (
                back.f_code.co_filename.startswith(HERE) or back.f_code.co_name == "__del__"
            ):
                return
        module = _module(file)
        if self._modules and module not in self._modules:
            return
        self._left -= 1
        if self._left < 0:
            self.place = f"{module}:{frame.f_lineno} {frame.f_code.co_name}"
            raise Interrupt


@cache
def _module(file: str) -> str:
    return Path(file).stem


def points(url: str, modules: list[str]) -> dict[str, Any]:
    """Interrupt a call at each point of these modules, and call again. Tell what failed then."""
    failed: list[str] = []
    writer = Writer(Database(url), SETTINGS)
    for point in count():
        interrupted = Interrupted(point, modules)

        def calls(interrupted: Interrupted = interrupted, writer: Writer = writer) -> None:
            call(writer)
            try:
                with interrupted:
                    call(writer)
            except Interrupt:
                pass
            call(writer, timeout=2)

        try:
            Context().run(calls)
        except (psycopg.Error, OutboxError) as error:
            failed.append(f"{interrupted.place}: {error}")
            writer = Writer(Database(url), SETTINGS)
        if not interrupted.place:
            return {"points": point, "failed": failed}
    raise AssertionError


def pool(url: str, modules: list[str]) -> dict[str, Any]:
    """Interrupt a call on a pool of the caller at each point. Tell where it lost the connection."""
    lost: list[str] = []
    with (
        Writer(Database(url), SETTINGS) as writer,
        ConnectionPool(url, min_size=1, max_size=1) as its_pool,
    ):
        run = partial(transact, writer, its_pool, lambda connection: connection.execute("SELECT 1"))
        run()
        for point in count():
            interrupted = Interrupted(point, modules)
            with suppress(Interrupt), interrupted:
                run()
            try:
                its_pool.putconn(its_pool.getconn(timeout=3))
            except PoolTimeout:
                lost.append(interrupted.place)
                its_pool.resize(1, 1 + len(lost))
            if not interrupted.place:
                break
    return {"points": interrupted.point, "lost": lost}


def engine(url: str, modules: list[str]) -> dict[str, Any]:
    """Interrupt a call on an engine of the caller at each point. Tell where it left it open."""
    left: list[str] = []
    its_engine = create_engine(engine_url(url, "psycopg"), pool_size=1)
    sessions = sessionmaker(its_engine)
    with (
        psycopg.connect(url, autocommit=True) as watcher,
        Writer(Database(url), SETTINGS) as writer,
    ):
        run = partial(transact, writer, sessions, lambda session: session.execute(text("SELECT 1")))
        run()
        for point in count():
            interrupted = Interrupted(point, modules)
            with suppress(Interrupt), interrupted:
                run()
            gc.collect()
            if _stays_open(watcher):
                left.append(interrupted.place)
                its_engine.dispose()
            if not interrupted.place:
                break
    return {"points": interrupted.point, "left": left}


def _stays_open(watcher: psycopg.Connection[Any]) -> bool:
    """Whether a session keeps its transaction; such sessions are ended."""
    end = monotonic() + _CLOSING
    while found := watcher.execute(_OPEN).fetchall():
        if monotonic() > end:
            watcher.cursor().executemany("SELECT pg_terminate_backend(%s)", found)
            return True
        sleep(0.01)
    return False


def appends(url: str, given: list[str]) -> dict[str, Any]:
    """Interrupt an append at each point, swallow that, and commit. Tell what was torn apart."""
    way, *modules = given
    way, _, version = way.partition(" ")  # a version is one that the append refuses
    engine = create_engine(engine_url(url, "psycopg"), poolclass=NullPool)
    with (
        psycopg.connect(url, autocommit=True) as watcher,
        Writer(Database(url), SETTINGS) as writer,
        ConnectionPool(url, min_size=1, max_size=1) as its_pool,
    ):
        watcher.execute("CREATE TABLE IF NOT EXISTS interrupted_rows (n int)")
        call(writer)
        run = partial(WAYS[way], writer, {"url": url, "engine": engine, "pool": its_pool})
        for point in count():
            interrupted = Interrupted(point, modules)

            def store(session: Any, interrupted: Interrupted = interrupted) -> None:
                row = f"INSERT INTO interrupted_rows VALUES ({interrupted.point})"
                session.execute(text(row) if isinstance(session, Session) else row)
                event = Event.new("CarMoved", [Entity("Row", str(interrupted.point))])
                expected = int(version) if version else None
                with suppress(Interrupt, ValueError), interrupted:
                    writer.append_to(session, event, expected_version=expected)

            with suppress(Exception):
                run(store)
            if not interrupted.place:
                break
        rows = watcher.execute("SELECT n FROM interrupted_rows").fetchall()
        events = watcher.execute(
            "SELECT entity_id::int FROM outbox.entities WHERE entity_type = 'Row'"
        ).fetchall()
    return {"points": point, "torn": len({*rows} ^ {*events}), "stored": len(rows)}


def remembers(url: str, modules: list[str]) -> dict[str, Any]:
    """Interrupt a `remember` that is refused, at each point, and commit. Tell what is stored."""
    with psycopg.connect(url, autocommit=True) as watcher, Inbox(Database(url), "mailer") as inbox:
        watcher.execute("CREATE TABLE IF NOT EXISTS interrupted_rows (n int)")
        for point in count():
            interrupted = Interrupted(point, modules)
            with suppress(Exception), psycopg.connect(url) as connection:
                connection.execute("INSERT INTO interrupted_rows VALUES (1)")
                with suppress(Interrupt, ValueError), interrupted:
                    inbox.remember(connection, "")
            if not interrupted.place:
                break
        stored = watcher.execute("SELECT n FROM interrupted_rows").fetchall()
    return {"points": point, "stored": len(stored)}


def in_connection(_: Writer, sources: dict[str, Any], store: Callable[[Any], None]) -> None:
    with psycopg.connect(sources["url"]) as connection:
        store(connection)


def in_session(_: Writer, sources: dict[str, Any], store: Callable[[Any], None]) -> None:
    with Session(sources["engine"]) as session:
        store(session)
        session.commit()


def in_transact(writer: Writer, _: dict[str, Any], store: Callable[[Any], None]) -> None:
    writer.transact(lambda transaction: store(transaction.connection))


def in_pool(writer: Writer, sources: dict[str, Any], store: Callable[[Any], None]) -> None:
    transact(writer, sources["pool"], store)


def in_engine(writer: Writer, sources: dict[str, Any], store: Callable[[Any], None]) -> None:
    transact(writer, sessionmaker(sources["engine"]), store)


WAYS: Final[dict[str, Callable[..., None]]] = {
    "connection": in_connection,
    "session": in_session,
    "transact": in_transact,
    "pool": in_pool,
    "engine": in_engine,
}


def signals(url: str, _: list[str]) -> dict[str, Any]:
    """Interrupt calls at random by a signal handler, and call again. Tell what failed then."""

    def handler(*_: object) -> None:
        raise Interrupt

    chance = random.Random(20261130)
    signal.signal(signal.SIGALRM, handler)
    interrupted = 0
    failed: list[str] = []
    with Writer(Database(url), SETTINGS) as writer:
        call(writer)
        began = monotonic()
        call(writer)
        length = monotonic() - began
        for _ in range(SIGNALS):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 1.5 * length))
                call(writer)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                interrupted += 1
            try:
                call(writer, timeout=5)
            except (psycopg.Error, OutboxError) as error:
                failed.append(str(error))
    return {"interrupted": interrupted, "failed": failed}


def threads(url: str, _: list[str]) -> dict[str, Any]:
    """Set an exception for a thread that has just started the one that opens its connection.

    Tell how many calls hang. On one processor the new thread has hardly begun by then.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    start, mine = _thread.start_new_thread, threading.local()

    def start_and_interrupt(function: Callable[..., Any], given: tuple[Any, ...]) -> int:
        started = start(function, given)
        if vars(mine).pop("is_caller", False):
            ident = ctypes.c_ulong(_thread.get_ident())
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Interrupt))
        return started

    def run(writer: Writer) -> None:
        mine.is_caller = True
        with suppress(Interrupt):
            call(writer, timeout=5)

    calls = [
        threading.Thread(target=run, args=(Writer(Database(url), SETTINGS),), daemon=True)
        for _ in range(THREADS)
    ]
    _thread.start_new_thread = start_and_interrupt  # type: ignore[assignment]
    vars(threading)["_start_new_thread"] = start_and_interrupt
    for each in calls:
        each.start()
        each.join(10)
    return {"hang": sum(each.is_alive() for each in calls)}


if __name__ == "__main__":
    ways = {
        each.__name__: each for each in (points, pool, engine, appends, remembers, signals, threads)
    }
    way = ways[sys.argv[1]]
    sys.stdout.write(json.dumps(way(sys.argv[2], sys.argv[3:])))
