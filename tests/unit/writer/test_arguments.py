"""Input that is refused at the door: one table for each call of the API, with the text it is told.

Nobody listens at the address, so a call that would send anything ends in another error.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, sessionmaker

from dsql_outbox.inbox import AsyncInbox, Inbox
from dsql_outbox.operations import Messages, Retention, Targets, Topics
from dsql_outbox.outbox import Database, Entity, Event, OutboxError, SettingsError
from dsql_outbox.publisher import Publisher, PublisherSettings, TopicSettings, open_sink
from dsql_outbox.schema import apply
from dsql_outbox.schema.roles import Roles, grant
from dsql_outbox.starlette import Outbox
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings, transact

SECRET: Final = "payload-7f3a"
DATABASE: Final = Database("host=/nonexistent")
CLUSTER: Final = Database("dsql://app@abc.dsql.eu-west-1.on.aws/postgres")
EVENT: Final = Event.new("LoanCreated", [Entity("Loan", "1", {"note": SECRET})])
WRITERS: Final = [Writer, AsyncWriter]
Refused = tuple[Callable[..., Any], type[Exception], str]


class Session:
    """Named as SQLAlchemy's, and another class."""


class Own(DeclarativeBase):
    """A caller's table."""


async def coroutine_function(*_: object) -> None:
    """Given where a function is taken."""


async def asynchronous_generator(_: object) -> AsyncIterator[int]:
    yield 1


def generator(_: object) -> Iterator[int]:
    yield 1


def refused(call: Callable[[], Any]) -> Exception:
    """The error of a call; of a coroutine, once it runs."""

    async def run() -> None:
        found = call()
        if hasattr(found, "__aiter__"):
            await anext(found)
        elif hasattr(found, "__await__"):
            await found
        elif hasattr(found, "__next__"):
            next(found)

    with pytest.raises((TypeError, ValueError)) as caught:
        asyncio.run(run())
    assert SECRET not in str(caught.value)
    return caught.value


def writer_is_made_of() -> Iterator[Refused]:
    """`w` is the class of a writer, and so is {}."""
    yield from (
        (lambda w: w("postgresql://u:pw@h/d"), TypeError, "{} takes a Database, not str: {}(Datab"),
        (lambda w: w(None), TypeError, "{} takes a Database, not NoneType"),
        (lambda w: w(DATABASE, {"base": 1}), TypeError, "{} takes WriterSettings, not dict: Write"),
        (
            lambda w: w(DATABASE, PublisherSettings()),
            TypeError,
            "{} takes WriterSettings, not Publi",
        ),
        (lambda w: w(DATABASE, hooks=print), TypeError, "{} takes a list of hooks, not builtin_fu"),
        (lambda w: w(DATABASE, hooks=[print, "x"]), TypeError, "hooks[1] of {} must be a function"),
    )


TIMEOUTS: Final[list[tuple[Any, type[Exception], str]]] = [
    (math.inf, ValueError, "timeout must be a finite number of seconds, 0 or more, or None"),
    (math.nan, ValueError, "got nan"),
    (10**400, ValueError, "got an int of 1329 bits"),
    (-(10**5_000), ValueError, "got an int of 16610 bits"),
    (-1, ValueError, "got -1"),
    ("5", TypeError, "timeout takes seconds, or None for no limit, not str: timeout=5.0"),
    (True, TypeError, "not bool"),
    (Decimal(5), TypeError, "not Decimal"),
]
VERSIONS: Final[list[tuple[Any, type[Exception], str]]] = [
    (-1, ValueError, " must be from 0 (no such entity) to 2**63 - 1, got -1"),
    (2**63, ValueError, " must be from 0"),
    (True, TypeError, " takes an int, or None for any version, not bool: "),
    (1.0, TypeError, "not float"),
    ("1", TypeError, "not str"),
]


def methods_take() -> Iterator[Refused]:
    """`w` is a writer."""
    for timeout, kind, text in TIMEOUTS:
        yield lambda w, t=timeout: w.write(EVENT, timeout=t), kind, text
        yield lambda w, t=timeout: w.write_many([EVENT], timeout=t), kind, text
        yield lambda w, t=timeout: w.transact(print, timeout=t), kind, text
    for version, kind, text in VERSIONS:
        told = text if text.startswith("not") else f"{{}}{text}"
        for name, call in (
            ("expected_version", lambda w, v=version: w.write(EVENT, expected_version=v)),
            (
                "expected_versions[1]",
                lambda w, v=version: w.write_many([EVENT] * 2, expected_versions=[0, v]),
            ),
            ("after", lambda w, v=version: w.stream("Loan", "1", after=v)),
        ):
            yield call, kind, told.replace("{}", name)
    for entities in ("Car", [("Car",)], [("Car", 1)], ["ab"], 7):
        yield lambda w, e=entities: w.transact(print, entities=e), TypeError, "entit"
    yield from (
        (lambda w: w.entity("Loan", 7), TypeError, "entity_id takes a str, not int"),
        (lambda w: w.stream(None, "1"), TypeError, "entity_type takes a str, not NoneType"),
        (
            lambda w: w.write(EVENT, on_duplicate="ignore"),
            ValueError,
            'on_duplicate must be "error" or "return", got "ignore"',
        ),
        (
            lambda w: w.write(EVENT, on_duplicate=None),
            TypeError,
            'on_duplicate takes a str, not NoneType: on_duplicate="return"',
        ),
        (lambda w: w.write_many([EVENT], on_duplicate=True), TypeError, "not bool"),
        (lambda w: w.write_many([EVENT], on_duplicate=["error"]), TypeError, "not list"),
        (
            lambda w: w.write(None),
            TypeError,
            "event takes an Event, a JsonEvent, a mapping, or JSON as str or bytes, not NoneType",
        ),
        (lambda w: w.write([EVENT]), TypeError, "not list"),
        (lambda w: w.write(5), TypeError, "not int"),
        (lambda w: w.write_many(EVENT), TypeError, "takes a list of events, not Event: write_many"),
        (lambda w: w.write_many({"a": SECRET}), TypeError, "a list of events, not dict"),
        (lambda w: w.write_many(None), TypeError, "a list of events, not NoneType"),
        (lambda w: w.write_many([EVENT, None]), TypeError, "events[1] takes an Event"),
        (
            lambda w: w.write_many([EVENT], expected_versions=0),
            TypeError,
            "expected_versions takes a list with an entry per event, not int",
        ),
        (
            lambda w: w.write_many([EVENT] * 2, expected_versions=[0]),
            ValueError,
            "expected_versions must have an entry per event: got 1 for 2",
        ),
        (
            lambda w: w.transact(None),
            TypeError,
            "transact takes a function of a transaction, not NoneType: transact(function)",
        ),
        (lambda w: w.append_to(None, EVENT), TypeError, "not NoneType"),
    )


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("call", "kind", "text"), [*writer_is_made_of()])
def test_what_a_writer_is_made_of(
    writer: Any, call: Callable[[Any], Any], kind: type[Exception], text: str
) -> None:
    error = refused(partial(call, writer))
    assert isinstance(error, kind)
    assert text.replace("{}", writer.__name__) in str(error)


@pytest.mark.parametrize("writer", WRITERS)
def test_what_the_methods_of_a_writer_take(writer: Any) -> None:
    for call, kind, text in methods_take():
        error = refused(partial(call, writer(DATABASE)))
        assert isinstance(error, kind)
        assert text in str(error)


def pools_and_sessions() -> Iterator[Refused]:
    """What `transact` and `append_to` take of a caller."""
    of_threads: Any = partial(transact, Writer(DATABASE))
    of_tasks: Any = partial(transact, AsyncWriter(DATABASE))
    engine = create_engine("sqlite://")
    for given, text in (
        (sessionmaker(engine), "not on pysqlite"),
        (sessionmaker(), "the sessionmaker of one engine: sessionmaker(engine)"),
        (sessionmaker(binds={Own: engine}), "one engine"),
        (engine, "ConnectionPool, not Engine: sessionmaker(engine)"),
        (async_sessionmaker(), "a ConnectionPool, not async_sessionmaker"),
        (object(), "a sessionmaker or a ConnectionPool, not object"),
        (None, "a sessionmaker or a ConnectionPool, not NoneType"),
    ):
        yield partial(of_threads, given, print), TypeError, text
    for given, text in (
        (async_sessionmaker(), "the async_sessionmaker of one engine"),
        (sessionmaker(), "an AsyncConnectionPool, not sessionmaker"),
        (None, "an AsyncConnectionPool, not NoneType"),
    ):
        yield partial(of_tasks, given, print), TypeError, text
    for function in (
        coroutine_function,
        partial(coroutine_function),
        asynchronous_generator,
        generator,
    ):
        yield partial(Writer(DATABASE).transact, function), TypeError, "AsyncWriter"
    takes: Any = transact
    yield from (
        (
            lambda: takes(DATABASE, sessionmaker(), print),
            TypeError,
            "takes a Writer or AsyncWriter",
        ),
        (
            lambda: AsyncWriter(DATABASE).transact(coroutine_function(None)),  # type: ignore[arg-type]
            TypeError,
            "not coroutine",
        ),
        (
            lambda: Writer(DATABASE).append_to(Session(), EVENT),  # type: ignore[arg-type]
            TypeError,
            "a Session or Connection of SQLAlchemy, or Django's connection, not Session: psycopg.c",
        ),
        (
            lambda: AsyncWriter(DATABASE).append_to(Session(), EVENT),  # type: ignore[arg-type]
            TypeError,
            "an AsyncSession or AsyncConnection of SQLAlchemy, not Session: psycopg.AsyncConnec",
        ),
    )


def databases() -> Iterator[Refused]:
    at: Any = Database
    yield from (
        (lambda: at(None), TypeError, 'a URL as str, not NoneType: Database("postgresql://h'),
        (lambda: at(DATABASE), TypeError, "not Database"),
        (lambda: at("host=h", schema=None), TypeError, 'str, not NoneType: schema="outbox"'),
        (lambda: at("host=h", prepare="no"), TypeError, "a bool, not str: prepare=False"),
        (
            lambda: at("host=h", isolation="serializable"),
            SettingsError,
            "Database.isolation must be read committed, repeatable read or None, got serializable",
        ),
        (lambda: at("host=h", connect_timeout=math.inf), SettingsError, "a finite number"),
        (lambda: at("host=h", connect_timeout="5"), SettingsError, "must be a number, got"),
        (lambda: at("host=h", connect_timeout=0), SettingsError, "timeout must be above 0, got 0"),
        (lambda: at("host=h", opens_per_second=10**5_000), SettingsError, "of 16610 bits"),
        (lambda: at("host=h", opens_per_second=True), SettingsError, "must be a number"),
        (lambda: at("host=h", opens_per_second=-0.5), SettingsError, "must be above 0, got -0.5"),
        (lambda: apply(DATABASE, shards=0), SettingsError, "from 1 to 1024, got 0"),
        (lambda: apply(DATABASE, shards=1025), SettingsError, "from 1 to 1024, got 1025"),
        (lambda: grant(DATABASE, Roles()), SettingsError, "no role is named"),
    )


LOANS: Final = TopicSettings(attempts=3)


def settings() -> Iterator[Refused]:
    ours: list[tuple[dict[str, Any], str]] = [
        ({"timeout": 0}, "timeout must be above 0, got 0"),
        ({"timeout": None}, "timeout=None) needs max_retries: else nothing would end the retries"),
        ({"max_outage": 45}, "max_outage=45 is over timeout=30, which ends each call before"),
        ({"max_outage": -1}, "max_outage must be 0 or more, got -1"),
        ({"max_outage": -(10**400)}, "an int of 1329 bits"),
        ({"max_outage": math.inf}, "max_outage must be a finite number"),
        ({"max_retries": -1}, "max_retries must be 0 or more, got -1"),
        ({"max_retries": 2.5}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"coalesce": -1}, "coalesce must be 0 or more, got -1"),
        ({"max_connections": 0}, "max_connections must be above 0"),
        ({"max_connections": 1.0}, "max_connections"),
        ({"backlog_check": 0}, "backlog_check must be above 0, got 0"),
        ({"backlog_warn": -1.0}, "backlog_warn"),
        ({"source": ""}, "source must not be empty"),
        ({"source": "/a\0b"}, "source"),
        ({"source": "s" * 129}, "source"),
        ({"source": "/a b"}, "source"),
        ({"source": "/caf\u00e9"}, "source"),
        ({"topic": None}, "topic"),
        ({"topic": "events.\ud800"}, "topic"),
        ({"topic": "{nothing}"}, "has no field nothing (known: entity_type, event_name, event_ty"),
        ({"topic": "{}"}, "has no field {}"),
        ({"topic": "{event_type"}, "is no template"),
        ({"topic": "{event_type:d}"}, "is no template"),
        ({"topic": "{event_type:{width}}"}, "is no template"),
        ({"topic": "my events.{event_type}"}, "has the character ' ' (U+0020"),
        ({"topic": "events..{event_type}"}, "has an empty part"),
    ]
    for values, text in ours:
        yield partial(WriterSettings, **values), SettingsError, text
    coalescing = WriterSettings(coalesce=4)
    yield partial(Writer, DATABASE, coalescing), SettingsError, "coalesce=4 needs an AsyncWriter"
    theirs: list[tuple[dict[str, Any], str]] = [
        ({"lease": 0}, "lease"),
        ({"lease": -1.0}, "lease"),
        ({"lease": math.nan}, "lease"),
        ({"lease": math.inf}, "lease"),
        ({"idle_max": 0}, "idle_max must be above 0, got 0"),
        ({"idle_max": math.nan}, "idle_max"),
        ({"attempts": 0}, "attempts must be above 0, got 0"),
        ({"backoff_cap": math.inf}, "backoff_cap"),
        (
            {"backoff_base": 9.0, "backoff_cap": 8.0},
            "backoff_cap must not be below backoff_base, 9 s; got 8",
        ),
        ({"on_dead_letter": "drop"}, "on_dead_letter must be release or block"),
    ]
    for values, text in theirs:
        yield partial(PublisherSettings, **values), SettingsError, f"PublisherSettings.{text}"
    of_topics: list[tuple[dict[str, Any], str]] = [
        ({"a.*": TopicSettings(attempts=0)}, "['a.*'].attempts must be above 0, got 0"),
        (
            {"a": TopicSettings(backoff_base=math.nan)},
            "['a'].backoff_base must be a finite number, got nan",
        ),
        (
            {"a": TopicSettings(backoff_base=301)},
            "['a'].backoff_cap must not be below backoff_base, 301 s; got 300",
        ),
        (
            {"a": TopicSettings(on_dead_letter="drop")},  # type: ignore[arg-type]
            "['a'].on_dead_letter must be release or block, got drop",
        ),
        ({"": LOANS}, "['']: a pattern must not be empty"),
        ({"a": {"attempts": 3}}, "['a'] must be TopicSettings, got dict"),
        ({"*": LOANS, "a.*": LOANS}, "['a.*'] is never used: '*' comes first and matches, too"),
        ({"a.?": LOANS, "a.b": LOANS}, "['a.b'] is never used: 'a.?' comes first"),
    ]
    for topics, text in of_topics:
        call = partial(PublisherSettings, topics=topics)
        yield call, SettingsError, f"PublisherSettings.topics{text}"


def publishers() -> Iterator[Refused]:
    made: Any = Publisher
    sink, needs = MemorySink(), "Publisher takes the URL of a sink"
    yield from (
        (lambda: made("host=h", sink), TypeError, "Publisher takes a Database, not str"),
        (
            lambda: made(DATABASE, 7),
            TypeError,
            "or an open sink, not int: Publisher(database, sink=",
        ),
        (lambda: made(DATABASE, b"nats://h"), TypeError, needs),
        (lambda: made(DATABASE, coroutine_function), TypeError, needs),
        (lambda: made(DATABASE, open_sink("stdout:")), TypeError, needs),
        (lambda: made(DATABASE), TypeError, "a sink, or a function to apply"),
        (lambda: made(DATABASE, "nowhere://x"), SettingsError, "no sink for URLs nowhere:"),
        (lambda: made(DATABASE, "nats://x?unknown=1"), SettingsError, "unknown in a NATS URL"),
        (lambda: made(DATABASE, sink, {}), TypeError, "PublisherSettings, not dict"),
        (lambda: made(DATABASE, sink, hooks=[1]), TypeError, "hooks[0] of Publisher"),
        (
            lambda: made(DATABASE, sink, map=coroutine_function),
            TypeError,
            "must be a plain function",
        ),
        (lambda: made(DATABASE, apply=print), TypeError, "async def apply"),
        (
            lambda: made(DATABASE, apply=coroutine_function, map=print, target="model"),
            SettingsError,
            "takes a map with a sink",
        ),
        (
            lambda: made(DATABASE, sink, apply=coroutine_function),
            SettingsError,
            "a read model beside a broker is a target of its own, ",
        ),
        (
            lambda: made(DATABASE, apply=coroutine_function),
            SettingsError,
            "target of the kind model, and target default is a sink: ",
        ),
        (
            lambda: made(CLUSTER, "stdout:", PublisherSettings(doorbell=True)),
            SettingsError,
            "PublisherSettings.doorbell is not supported",
        ),
        (lambda: made(DATABASE, sink).run(max_wait=math.nan), ValueError, "max_wait must"),
        (
            lambda: made(DATABASE, sink).run(max_seconds=-1),
            ValueError,
            "max_seconds must be a finite number of seconds, 0 or more",
        ),
        (
            lambda: made(DATABASE, sink).run(until_empty="mine"),
            ValueError,
            "until_empty must be True, False or \"own\", got 'mine'",
        ),
    )


def inboxes() -> Iterator[Refused]:
    for made in (Inbox, AsyncInbox):
        inbox: Any = made(DATABASE, "mailer")
        maker, text = (
            ("once of Inbox takes a sessionmaker", 'create_engine("postgresql+psycopg://')
            if made is Inbox
            else ("once of AsyncInbox takes an async_sessionmaker", "create_async_engine")
        )
        yield partial(made, "host=h", "mailer"), TypeError, "takes a Database, not str"
        yield partial(made, DATABASE, "mailer", sessions=object()), TypeError, maker
        for name in ("", "a b", "x" * 65):
            yield partial(made, DATABASE, name), SettingsError, "must be 1 to 64 of"
        for given in (None, "postgresql://", psycopg.Connection, object()):
            yield partial(inbox.remember, given, "a"), TypeError, text
        for message in ("", "x" * 129, "a\0", "\ud800"):
            yield partial(inbox.once, message, print), ValueError, "1 to 128 characters"
        once = partial(inbox.once, "a", print, on_gap="stop")
        yield once, ValueError, 'on_gap must be "run" or "raise"'
        once = partial(inbox.once, 7, print)
        yield once, TypeError, "once takes an id or a Received message, not int"
        yield partial(inbox.prune, timedelta(0)), SettingsError, "older_than must be above 0"
    of_threads: Any = Inbox(DATABASE, "mailer")
    yield partial(of_threads.once, "a", coroutine_function), TypeError, "AsyncInbox"


def tools() -> Iterator[Refused]:
    """Of an operator, and of an application."""
    day, made = timedelta(days=1), Outbox
    yield partial(Retention(DATABASE).keep, -day, day), SettingsError, "the age must be 0 or more"
    yield partial(Retention(DATABASE).keep, day, timedelta(0)), SettingsError, "every"
    for name in ("", "Lake", "1st", "a" * 64, "a b", "lake\n", "\u00e4"):
        add = partial(Targets(DATABASE).add, name)
        yield add, SettingsError, "a target has a name of a-z 0-9 _ - that begins with"
    for topic in ("", "x" * 256, "a\0b"):
        for verb in ("pause", "resume"):
            call = partial(getattr(Topics(DATABASE), verb), topic)
            yield call, SettingsError, "a topic has 1 to 255 characters"
    for place in ("", "7", "Car/a", "Car/a@", "Car/a@x", "@7", "Car@7"):
        yield partial(Messages(DATABASE).replay, after=place), SettingsError, "is no TYPE/ID"
    wrong: Any = made
    yield from (
        (lambda: wrong("host=h"), TypeError, "Outbox takes a Database, not str: Outbox(Database"),
        (lambda: wrong(DATABASE, sink=DATABASE), TypeError, "not Database: Outbox(database, sink="),
        (
            lambda: wrong(DATABASE, PublisherSettings()),
            TypeError,
            "Outbox takes WriterSettings, not PublisherSettings",
        ),
        (
            lambda: wrong(DATABASE, publisher=PublisherSettings()),
            SettingsError,
            "no sink= and no apply=",
        ),
    )


@pytest.mark.parametrize(
    "table", [pools_and_sessions, databases, settings, publishers, inboxes, tools]
)
def test_what_the_rest_takes(table: Callable[[], Iterator[Refused]]) -> None:
    for call, kind, text in table():
        error = refused(call)
        assert isinstance(error, kind)
        assert text in str(error)


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.write(EVENT),
        lambda w: w.write_many([EVENT]),
        lambda w: w.transact(coroutine_function),
        lambda w: w.entity("Loan", "1"),
        lambda w: anext(w.stream("Loan", "1")),
        lambda w: w.close(),
    ],
    ids=["write", "write_many", "transact", "entity", "stream", "close"],
)
@pytest.mark.parametrize("coalesce", [0, 1])
def test_an_async_writer_without_asyncio_names_the_way_out(
    call: Callable[[Any], Any], coalesce: int
) -> None:
    """As trio does: it drives coroutines without an event loop of asyncio."""
    running = call(AsyncWriter(DATABASE, WriterSettings(coalesce=coalesce))).__await__()
    with pytest.raises(OutboxError, match=r"runs on asyncio, .* trio\.to_thread\.run_sync\(writer"):
        running.send(None)
