"""What a Database refuses before any I/O, and that it does none."""

import contextlib
import socket
import traceback
from time import monotonic
from typing import Any

import anyio
import psycopg
import pytest

from dsql_outbox.outbox import Database, SettingsError
from dsql_outbox.outbox.database import database as module
from dsql_outbox.outbox.database.postgres_address import PostgresAddress
from dsql_outbox.outbox.database.url_scheme import address_of

CLUSTER = "abc.dsql.eu-west-1.on.aws"
NOWHERE = "host=/nonexistent dbname=postgres"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://db.example.com/orders", "db.example.com:5432/orders"),
        ("postgres://app@db.example.com:6432/orders", "db.example.com:6432/orders"),
        ("host=db.example.com dbname=orders", "db.example.com:5432/orders"),
        ("dbname=orders options='-c search_path=a:b'", "the local socket:5432/orders"),
    ],
)
def test_a_postgresql_database_is_named_by_url_or_by_key_and_value(url: str, shown: str) -> None:
    address = address_of(url, None)
    assert isinstance(address, PostgresAddress)
    assert str(address) == shown
    assert repr(Database(url)) == f"Database({shown}, schema='outbox')"


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("postgresql://app:s3cret@db.example:6432/orders", ("db.example", 6432, "orders")),
        ("host=a,b port=1,2 dbname=orders", ("a,b", None, "orders")),
        (f"host=a,/{'b' * 64} port=1,", (f"a,/{'b' * 64}", None, None)),
        ("host=db.example", ("db.example", 5432, None)),
        ("dbname=orders", (None, 5432, "orders")),
        ("dsql://app@abc.dsql.eu-west-1.on.aws/postgres", (CLUSTER, 5432, "postgres")),
    ],
)
def test_the_endpoint_of_a_database_has_what_its_url_names(
    url: str, endpoint: tuple[object, ...]
) -> None:
    assert Database(url).endpoint == endpoint


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("", "the database URL is empty"),
        ("mysql://h/db", "unknown kind of database mysql:"),
        ("embedded:", "dsql_outbox.testing.EmbeddedPostgres"),
        ("postgresql://h/db?nonsense=1", "is not one that libpq can read"),
        ("nonsense", "is not one that libpq can read"),
        ("postgresql://u:s3cret@h\udcff/db", "is not one that libpq can read"),
        ("host=\udcff password=s3cret", "is not one that libpq can read"),
        ("host= password=s3cret", "the parameter host of the database URL is empty"),
        ("port= password=s3cret host=h", "the parameter port of the database URL is empty"),
        ("host=h sslmode= password=s3cret", "the parameter sslmode of the database URL is empty"),
        ("host=h user= passfile=s3cret", "the parameter user of the database URL is empty"),
        (f"postgresql://u:s3cret@h:{'7' * 4301}/db", "the port of the database URL is 1 to 65535"),
        ("postgresql://u:s3cret@h:65536/db", "the port of the database URL is 1 to 65535"),
        ("host=a,b port=5432,0 password=s3cret", "the port of the database URL is 1 to 65535"),
        (f"postgresql://u:s3cret@{'h' * 64}/db", "the host of the database URL is no name"),
        ("host=a,.b password=s3cret", "the host of the database URL is no name"),
        (f"dsql://app@{CLUSTER}:65536/db", "dsql://role@cluster.dsql.region.on.aws"),
        ("dsql://cluster", "dsql://role@cluster.dsql.region.on.aws"),
    ],
)
def test_a_url_that_cannot_work_is_refused_at_once(url: str, rule: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Database(url)
    assert rule in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:s3cret@h/db?nonsense=1",
        "postgresql://app:s3cret@[h/db",
        "host=h password=s3cret nonsense=1",
        "mysql://app:s3cret@h/db",
        "s3cret@h:5432/db",
    ],
)
def test_a_refused_url_does_not_tell_its_password(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Database(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_a_database_does_not_tell_its_password() -> None:
    database = Database("postgresql://app:s3cret@h/db")
    assert "s3cret" not in f"{database} {database!r} {database._address} {database._address!r}"


@pytest.mark.parametrize("schema", ["outbox", "_o", "o2", "o" * 63])
def test_a_schema_name_needs_no_quotes(schema: str) -> None:
    assert Database(NOWHERE, schema=schema).schema == schema


@pytest.mark.parametrize("schema", ["", "Outbox", "2o", "o-x", "o" * 64, 'o"; DROP', "o\n", "ö"])
def test_another_schema_name_is_refused(schema: str) -> None:
    with pytest.raises(SettingsError, match="lower-case letters, digits and _"):
        Database(NOWHERE, schema=schema)


def test_dsql_has_one_isolation_level() -> None:
    url = "dsql://app@abc.dsql.eu-west-1.on.aws/postgres"
    Database(url, isolation="repeatable read")
    with pytest.raises(SettingsError, match="one isolation level, repeatable read"):
        Database(url, isolation="read committed")


def test_making_a_database_does_no_io(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", None)
    monkeypatch.setattr(psycopg.Connection, "connect", None)
    monkeypatch.setattr(psycopg.AsyncConnection, "connect", None)
    Database("postgresql://db.example.com/orders")
    Database("dsql://app@abc.dsql.eu-west-1.on.aws/postgres")


def parameters(url: str, **settings: Any) -> dict[str, Any]:
    database = Database(url, **settings)
    return database._parameters(database._address.parameters("writer"))


def test_isolation_is_added_to_the_options_of_the_url() -> None:
    found = parameters("host=h options='-c work_mem=8MB'", isolation="repeatable read")
    options = "-c work_mem=8MB -c default_transaction_isolation=repeatable\\ read"
    options += " -c search_path=pg_catalog"
    assert found["options"] == options


@pytest.mark.parametrize(
    "refusal",
    [
        "FATAL:  unsupported startup parameter: options",
        "FATAL:  unsupported startup parameter in options: default_transaction_isolation",
    ],
)
def test_a_pooler_that_refuses_options_gets_none(refusal: str) -> None:
    """And the level goes into each transaction that writes."""
    address = Database("host=h options='-c work_mem=8MB'", isolation="repeatable read")._address
    assert address.begins_at is None
    assert address.renew(psycopg.OperationalError(refusal))
    assert address.parameters("writer")["options"] == "-c work_mem=8MB"
    assert address.begins_at is psycopg.IsolationLevel.REPEATABLE_READ
    assert address.renew(psycopg.OperationalError(refusal)), "of a connection opened meanwhile"


def test_without_isolation_the_options_stay() -> None:
    found = parameters("host=h options='-c work_mem=8MB'")
    assert found["options"] == "-c work_mem=8MB -c search_path=pg_catalog"


def test_a_pooler_that_takes_no_options_is_asked_again_without_ours() -> None:
    address = address_of("host=h", None)
    assert not address.renew(psycopg.OperationalError("connection refused"))
    refusal = psycopg.OperationalError("FATAL:  unsupported startup parameter: options")
    assert address.renew(refusal)
    assert "options" not in address.parameters("writer")
    assert address.renew(refusal)  # another caller's, which was on its way


def test_connections_commit_by_themselves_and_find_dead_links() -> None:
    found = parameters("host=h")
    expected = {
        "host": "h",
        "autocommit": True,
        "client_encoding": "UTF8",
        "connect_timeout": 10,
        "fallback_application_name": "dsql-outbox writer",
        "tcp_user_timeout": 10_000,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 2,
        "options": "-c search_path=pg_catalog",
        "prepare_threshold": None,
    }
    assert found == expected


def test_the_url_may_say_its_own_name() -> None:
    assert parameters("host=h application_name=billing")["application_name"] == "billing"


@pytest.mark.parametrize("name", ["tcp_user_timeout", "keepalives", "keepalives_idle"])
def test_the_url_may_say_how_dead_links_are_found(name: str) -> None:
    assert parameters(f"postgresql://h/d?{name}=0")[name] == "0"


@pytest.mark.parametrize(("setting", "seconds"), [(10, 10), (1.5, 2)])
def test_the_time_to_connect_is_whole_seconds_for_libpq(setting: float, seconds: int) -> None:
    database = Database("host=h", connect_timeout=setting)
    assert (
        database._parameters(database._address.parameters("writer"))["connect_timeout"] == seconds
    )


def test_opens_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = list[float]()
    monkeypatch.setattr(module, "sleep", waits.append)
    database = Database(NOWHERE, opens_per_second=0.01)
    for _ in range(102):
        with contextlib.suppress(psycopg.OperationalError):
            database.connect()
    assert waits[:100] == [0.0] * 100
    assert 99 < waits[100] <= 100 < waits[101] <= 200


@pytest.mark.anyio
async def test_opens_are_limited_for_tasks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = list[float]()

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(anyio, "sleep", note)
    database = Database(NOWHERE, opens_per_second=0.01)
    for _ in range(101):
        with contextlib.suppress(psycopg.OperationalError):
            await database.connect_async()
    assert waits[:100] == [0.0] * 100
    assert 99 < waits[100] <= 100


def test_a_password_with_a_bare_at_sign_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="%40") as caught:
        Database("postgresql://u:s3c@ret@host/db")
    assert "ret" not in str(caught.value).replace("written", "")


def test_a_turn_to_connect_that_comes_after_the_timeout_is_not_waited_for() -> None:
    database = Database("postgresql://127.0.0.1:1/x", opens_per_second=0.01)
    for _ in range(100):
        database._opens.reserve(monotonic())
    with pytest.raises(psycopg.OperationalError, match="after the timeout"):
        database.connect(timeout=0.5)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits for a turn to connect, which take no time here."""
    waits = list[float]()

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(module, "sleep", waits.append)
    monkeypatch.setattr(anyio, "sleep", note)
    return waits


def busy_database() -> Database:
    """One whose next connection may be opened in 100 s; nobody listens there."""
    database = Database("postgresql://127.0.0.1:1/x", opens_per_second=0.01)
    for _ in range(100):
        database._opens.reserve(monotonic())
    return database


def test_refused_openings_do_not_put_off_the_next_one(waits: list[float]) -> None:
    database = busy_database()
    for _ in range(300):
        with pytest.raises(psycopg.OperationalError, match="after the timeout"):
            database.connect(timeout=0.5)
    assert waits == []
    with pytest.raises(psycopg.OperationalError, match="refused"):
        database.connect(timeout=1_000.0)
    assert 50 < waits[0] <= 100


@pytest.mark.anyio
async def test_refused_openings_do_not_put_off_the_next_one_of_tasks(waits: list[float]) -> None:
    database = busy_database()
    for _ in range(300):
        with pytest.raises(psycopg.OperationalError, match="after the timeout"):
            await database.connect_async(timeout=0.5)
    assert waits == []
    with pytest.raises(psycopg.OperationalError, match="refused"):
        await database.connect_async(timeout=1_000.0)
    assert 50 < waits[0] <= 100


def test_an_interrupted_wait_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch) -> None:
    database = busy_database()
    waits = list[float]()

    def interrupt(seconds: float) -> None:
        waits.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sleep", interrupt)
    for _ in range(50):
        with pytest.raises(KeyboardInterrupt):
            database.connect()
    assert all(50 < wait <= 100 for wait in waits), waits


@pytest.mark.anyio
async def test_a_cancelled_wait_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch) -> None:
    database = busy_database()
    waits = list[float]()
    sleep = anyio.sleep

    async def cancelled(seconds: float) -> None:
        waits.append(seconds)
        scope.cancel()
        await sleep(seconds)

    monkeypatch.setattr(anyio, "sleep", cancelled)
    for _ in range(50):
        with anyio.CancelScope() as scope:
            await database.connect_async()
        assert scope.cancelled_caught
    assert all(50 < wait <= 100 for wait in waits), waits
