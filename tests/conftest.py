"""What every test shares."""

import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from shutil import disk_usage
from tempfile import TemporaryDirectory
from typing import Final
from uuid import uuid4

import pytest
from hypothesis import settings
from tests.support.dsql.server import ON_DSQL, postgres_server, refuse_unknown
from tests.support.outbox_databases import OutboxDatabases
from tests.support.pairs import leave_one_kind, leave_pairs

from dsql_outbox.observability.log_hook import log_facts
from dsql_outbox.testing import EmbeddedPostgres, NatsServer

ROOM: Final = 1 << 30  # bytes
SLOW_TIMEOUT: Final = 600  # seconds; a slow test beside busy ones takes four times its own


# Real servers and a busy machine: how long an example takes says nothing. The examples are the
# same in every run, or a change would be refused for what it did not do: FRESH=1 looks for more.
FRESH: Final = bool(os.environ.get("FRESH"))
settings.register_profile("here", deadline=None, max_examples=50, derandomize=not FRESH)
settings.load_profile("here")


def pytest_configure() -> None:
    """Before anything is collected."""
    refuse_unknown()
    os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and commands would fold their tables
    # In the background of a script it is ignored, and so it would be in all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: it goes on for us alone
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """All that is collected stays: to look through it for garbage takes a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In front of DSQL's shape: what uses such a database, and may meet it in another way."""
    leave_pairs(items)
    if not ON_DSQL:
        leave_one_kind(items)
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))
    if not ON_DSQL:
        return
    elsewhere = [
        item
        for item in items
        if "postgres" not in getattr(item, "fixturenames", ()) or item.get_closest_marker("client")
    ]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in set(elsewhere)]
    for item in items:
        if (found := item.get_closest_marker("postgres_only")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"PostgreSQL only: {found.args[0]}"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asyncio: psycopg does not run on trio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_lines_of_earlier_tests() -> None:
    """Writers of one process share their log, which sums up what comes often."""
    log_facts.flush()


@pytest.fixture(scope="session")
def quick_folder() -> Iterator[Path]:
    """A folder for databases, in memory if there is room: a new database takes a tenth then."""
    memory = Path("/dev/shm")
    has_room = memory.is_dir() and disk_usage(memory).free > ROOM and os.access(memory, os.W_OK)
    with TemporaryDirectory(prefix="outbox-", dir=memory if has_room else None) as folder:
        Path(folder).chmod(0o1777)  # as /tmp is: root's PostgreSQL runs as another user
        yield Path(folder)


@pytest.fixture
def tmp_path(quick_folder: Path) -> Iterator[Path]:
    """As pytest's own, in memory."""
    with TemporaryDirectory(dir=quick_folder) as name:
        yield Path(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that every user may enter, also when root runs the tests."""
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture(scope="session")
def postgres(quick_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server for all tests."""
    with postgres_server(quick_folder) as server:
        yield server


@pytest.fixture
def shards() -> int:
    """How many shards the tables of `outbox_url` have: as many as `apply` makes by itself."""
    return 16


@pytest.fixture(scope="session")
def outbox_databases(postgres: EmbeddedPostgres) -> Iterator[OutboxDatabases]:
    """Databases with outbox tables."""
    databases = OutboxDatabases(postgres)
    yield databases
    databases.close()


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, outbox_databases: OutboxDatabases) -> Iterator[str]:
    """The URL of an empty database of this test's own."""
    name = f"test_{uuid4().hex}"
    yield outbox_databases.create(name)
    postgres.drop_database(name)


@pytest.fixture
def outbox_url(outbox_databases: OutboxDatabases, shards: int) -> Iterator[str]:
    """The URL of a database with empty outbox tables, and nobody connected."""
    with outbox_databases.lent(shards) as url:
        yield url


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    """A NATS server with JetStream for all tests."""
    with NatsServer() as server:
        yield server.url


@pytest.fixture
def nats_server() -> Iterator[NatsServer]:
    """A NATS server of this test's own, which it may kill."""
    with NatsServer() as server:
        yield server
