"""Wrong arguments are refused where they enter, with the expression to write instead."""

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from dsql_outbox.outbox import Database, Entity, Event, OutboxError, SettingsError
from dsql_outbox.publisher import Publisher, PublisherSettings, TopicSettings
from dsql_outbox.writer import AsyncWriter, Writer, WriterSettings

SECRET = "payload-7f3a"
DATABASE = Database("host=/nonexistent")
EVENT = Event.new("LoanCreated", [Entity("Loan", "1", {"note": SECRET})])
WRITERS = [Writer, AsyncWriter]
Call = Callable[[Any], Any]


class Session:
    """Named as SQLAlchemy's, and another class."""


class Sink:
    """One that was opened."""

    system = "nowhere"

    async def publish(self, messages: object, answer: object) -> None:
        """Take messages."""


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


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda w: w("postgresql://u:pw@h/d"), "{} takes a Database, not str: {}(Database(url), "),
        (lambda w: w(None), "{} takes a Database, not NoneType"),
        (lambda w: w(DATABASE, {"base": 1}), "{} takes WriterSettings, not dict: WriterSettings(*"),
        (lambda w: w(DATABASE, PublisherSettings()), "{} takes WriterSettings, not PublisherSetti"),
        (lambda w: w(DATABASE, hooks=print), "{} takes a list of hooks, not builtin_function_or_m"),
        (lambda w: w(DATABASE, hooks=[print, "x"]), "hooks[1] of {} must be a function that recei"),
    ],
)
def test_what_a_writer_is_made_of(writer: Any, call: Call, text: str) -> None:
    error = refused(lambda: call(writer))
    assert isinstance(error, TypeError)
    assert text.replace("{}", writer.__name__) in str(error)


TIMEOUTS: list[Any] = [
    (math.inf, ValueError, "timeout must be a finite number of seconds, 0 or more, or None"),
    (math.nan, ValueError, "got nan"),
    pytest.param(10**400, ValueError, "got an int of 1329 bits", id="10**400"),
    pytest.param(-(10**5_000), ValueError, "got an int of 16610 bits", id="-(10**5000)"),
    (-1, ValueError, "got -1"),
    ("5", TypeError, "timeout takes seconds, or None for no limit, not str: timeout=5.0"),
    (True, TypeError, "not bool"),
    (Decimal(5), TypeError, "not Decimal"),
]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("method", ["write", "write_many", "transact"])
@pytest.mark.parametrize(("timeout", "kind", "text"), TIMEOUTS)
def test_a_timeout_is_none_or_seconds(
    writer: Any, method: str, timeout: object, kind: type[Exception], text: str
) -> None:
    argument = {"write": EVENT, "write_many": [EVENT], "transact": print}[method]
    error = refused(lambda: getattr(writer(DATABASE), method)(argument, timeout=timeout))
    assert isinstance(error, kind)
    assert text in str(error)


async def _nothing(_: object) -> None:
    """Given to `transact`."""


@pytest.mark.parametrize(
    "call",
    [
        lambda w: w.write(EVENT),
        lambda w: w.write_many([EVENT]),
        lambda w: w.transact(_nothing),
        lambda w: w.entity("Loan", "1"),
        lambda w: anext(w.stream("Loan", "1")),
        lambda w: w.close(),
    ],
    ids=["write", "write_many", "transact", "entity", "stream", "close"],
)
@pytest.mark.parametrize("coalesce", [0, 1])
def test_an_async_writer_without_asyncio_names_the_way_out(call: Call, coalesce: int) -> None:
    """As trio does: it drives coroutines without an event loop of asyncio."""
    running = call(AsyncWriter(DATABASE, WriterSettings(coalesce=coalesce))).__await__()
    with pytest.raises(OutboxError, match=r"runs on asyncio, .* trio\.to_thread\.run_sync\(writer"):
        running.send(None)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("version", "kind", "text"),
    [
        (-1, ValueError, "{} must be from 0 (no such entity) to 2**63 - 1, got -1"),
        (2**63, ValueError, "{} must be from 0"),
        (True, TypeError, "{} takes an int, or None for any version, not bool: {}=0"),
        (1.0, TypeError, "not float"),
        ("1", TypeError, "not str"),
    ],
)
def test_an_expected_version_is_an_int_from_0(
    writer: Any, version: object, kind: type[Exception], text: str
) -> None:
    made = writer(DATABASE)
    for name, call in {
        "expected_version": lambda: made.write(EVENT, expected_version=version),
        "expected_versions[1]": lambda: made.write_many(
            [EVENT, EVENT], expected_versions=[0, version]
        ),
        "after": lambda: made.stream("Loan", "1", after=version),
    }.items():
        error = refused(call)
        assert isinstance(error, kind)
        assert text.replace("{}", name) in str(error)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
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
            lambda w: w.write_many([EVENT], expected_versions=[]),
            ValueError,
            "expected_versions must have an entry per event: got 0 for 1",
        ),
        (
            lambda w: w.transact(None),
            TypeError,
            "transact takes a function of a transaction, not NoneType: transact(function)",
        ),
    ],
)
def test_what_the_methods_take(writer: Any, call: Call, kind: type[Exception], text: str) -> None:
    error = refused(lambda: call(writer(DATABASE)))
    assert isinstance(error, kind)
    assert text in str(error)


def test_a_coroutine_is_no_function() -> None:
    async def work(transaction: object) -> None:
        """Use the transaction."""

    error = refused(lambda: AsyncWriter(DATABASE).transact(work(None)))  # type: ignore[arg-type]
    assert "not coroutine" in str(error)


@pytest.mark.parametrize(
    ("writer", "text"),
    [
        (
            Writer,
            "a Session or Connection of SQLAlchemy, or Django's connection, not Session: psycopg.c",
        ),
        (
            AsyncWriter,
            "an AsyncSession or AsyncConnection of SQLAlchemy, not Session: psycopg.AsyncConnec",
        ),
    ],
)
def test_append_to_names_the_connection_that_it_takes(writer: Any, text: str) -> None:
    assert text in str(refused(lambda: writer(DATABASE).append_to(Session(), EVENT)))
    assert "not NoneType" in str(refused(lambda: writer(DATABASE).append_to(None, EVENT)))


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: Database(None), TypeError, 'a URL as str, not NoneType: Database("postgresql://h'),
        (lambda: Database(DATABASE), TypeError, "not Database"),
        (lambda: Database("host=h", schema=None), TypeError, 'str, not NoneType: schema="outbox"'),
        (lambda: Database("host=h", prepare="no"), TypeError, "a bool, not str: prepare=False"),
        (
            lambda: Database("host=h", isolation="serializable"),
            SettingsError,
            "Database.isolation must be read committed, repeatable read or None, got serializable",
        ),
        (lambda: Database("host=h", connect_timeout=math.inf), SettingsError, "a finite number"),
        (lambda: Database("host=h", connect_timeout="5"), SettingsError, "must be a number, got"),
        (lambda: Database("host=h", opens_per_second=10**5_000), SettingsError, "of 16610 bits"),
        (lambda: WriterSettings(max_outage=-(10**400)), SettingsError, "an int of 1329 bits"),
        (lambda: Database("host=h", opens_per_second=True), SettingsError, "must be a number"),
    ],
)
def test_what_a_database_takes(call: Any, kind: type[Exception], text: str) -> None:
    error = refused(call)
    assert isinstance(error, kind)
    assert text in str(error)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: Publisher("host=h", Sink()), TypeError, "Publisher takes a Database, not str"),
        (
            lambda: Publisher(DATABASE, 7),
            TypeError,
            "or an open sink, not int: Publisher(database, sink=",
        ),
        (lambda: Publisher(DATABASE, Sink(), {}), TypeError, "PublisherSettings, not dict"),
        (lambda: Publisher(DATABASE, Sink(), hooks=[1]), TypeError, "hooks[0] of Publisher"),
        (lambda: Publisher(DATABASE, Sink()).run(max_wait=math.nan), ValueError, "max_wait must"),
    ],
)
def test_what_a_publisher_takes(call: Any, kind: type[Exception], text: str) -> None:
    error = refused(call)
    assert isinstance(error, kind)
    assert text in str(error)


@pytest.mark.parametrize(
    "settings",
    [
        lambda: WriterSettings(max_outage=math.inf),
        lambda: WriterSettings(max_retries=2.5),  # type: ignore[arg-type]
        lambda: WriterSettings(max_retries=True),
        lambda: WriterSettings(max_connections=1.0),  # type: ignore[arg-type]
        lambda: WriterSettings(topic=None),  # type: ignore[arg-type]
        lambda: WriterSettings(topic="events.\ud800"),
        lambda: WriterSettings(source="/a\0b"),
        lambda: WriterSettings(source=""),
        lambda: WriterSettings(source="s" * 129),
        lambda: WriterSettings(source="/a b"),
        lambda: WriterSettings(source="/caf\u00e9"),
        lambda: PublisherSettings(lease=math.inf),
        lambda: PublisherSettings(idle_max=math.nan),
        lambda: PublisherSettings(backoff_cap=math.inf),
        lambda: PublisherSettings(topics={"a": TopicSettings(backoff_base=math.nan)}),
    ],
)
def test_settings_are_finite_and_of_their_type(settings: Callable[[], object]) -> None:
    assert isinstance(refused(settings), SettingsError)
