"""A password that changes while writers work: no call fails."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql as composed
from tests.support.database_roles import as_role, made_roles
from tests.support.waiting import wait_until
from tests.support.writer import workload_s

from dsql_outbox.outbox import Database, Receipt, SettingsError
from dsql_outbox.outbox.database import database as opening
from dsql_outbox.schema.roles import grant
from dsql_outbox.writer import AsyncWriter, Writer

pytestmark = [
    pytest.mark.postgres_only("the endpoint lets everybody in, as IAM does elsewhere"),
    pytest.mark.anyio,
]


class Rotation:
    """A role of a database, its password, and the place where it can be read."""

    def __init__(self, sql: psycopg.Connection[Any], url: str, role: str, file: Path) -> None:
        found = urlsplit(as_role(url, role))
        self._sql, self._role, self._file = sql, role, file
        self.secret = str(found.password)
        self._publish()
        address = f"{found.hostname}:{found.port}{found.path}"
        self.url = bare = f"postgresql://{role}@{address}"
        self.databases: dict[str, Callable[[], Database]] = {
            "function": lambda: Database(bare, password=lambda: self.secret),
            "file": lambda: Database(f"{bare}?passfile={file}"),
        }

    def rotate(self, was_refused: Callable[[], bool]) -> None:
        """Change the password and end the sessions; publish it after a login was refused."""
        changed = uuid4().hex
        name = composed.Identifier(self._role)
        self._sql.execute(composed.SQL("ALTER ROLE {} PASSWORD {}").format(name, changed))
        self._sql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
            [self._role],
        )
        wait_until(was_refused)
        self.secret = changed
        self._publish()

    def _publish(self) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"*:*:*:*:{self.secret}\n")
        new.chmod(0o600)
        new.replace(self._file)


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """The logins that were refused because of their password."""
    seen: list[Exception] = []

    def noted(error: Exception) -> bool:
        if is_wrong := judged(error):
            seen.append(error)
        return is_wrong

    judged = opening.is_wrong_password
    monkeypatch.setattr(opening, "is_wrong_password", noted)
    return seen


@pytest.fixture
def writing(sql: psycopg.Connection[Any], url: str, tmp_path: Path) -> Iterator[Rotation]:
    with made_roles(url) as roles:
        grant(Database(url), roles)
        yield Rotation(sql, url, str(roles.writer), tmp_path / "passwords")


@pytest.mark.parametrize("kind", ["function", "file"])
def test_no_write_fails_while_the_password_changes(
    writing: Rotation, refusals: list[Exception], kind: str
) -> None:
    over = threading.Event()

    def write(n: int) -> list[Receipt]:
        receipts = []
        while not over.is_set():
            receipts.append(writer.write(workload_s.car_created(f"CAR-{n}")))
        return [*receipts, writer.write(workload_s.car_created(f"CAR-{n}"))]

    with Writer(writing.databases[kind]()) as writer, ThreadPoolExecutor(4) as threads:
        written = [threads.submit(write, n) for n in range(4)]
        for _ in range(3):
            before = len(refusals)
            writing.rotate(lambda before=before: len(refusals) > before)
        over.set()
        assert all({type(each) for each in found.result()} == {Receipt} for found in written)


@pytest.mark.parametrize("kind", ["function", "file"])
async def test_on_an_event_loop_as_well(
    writing: Rotation, refusals: list[Exception], kind: str
) -> None:
    async with AsyncWriter(writing.databases[kind]()) as writer:
        await writer.write(workload_s.car_created("CAR-1"))
        with ThreadPoolExecutor(1) as thread:
            rotated = thread.submit(writing.rotate, lambda: bool(refusals))
            while not rotated.done():
                await writer.write(workload_s.car_created("CAR-1"))
            rotated.result()


def test_a_password_that_stays_wrong_is_told_after_a_while(
    writing: Rotation, refusals: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_PASSWORD_PATIENCE", 0.5)
    writing.secret = "wrong"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed") as raised:
        writing.databases["function"]().connect()
    assert len(refusals) > 1
    assert "wrong" not in str(raised.value)


@pytest.mark.parametrize(
    ("failing", "told"),
    [(lambda: {}["secret"], "raised KeyError"), (lambda: b"secret", "returned bytes, not str")],
)
async def test_a_function_without_a_password_is_an_outage_that_is_tried_again(
    writing: Rotation, failing: Callable[[], Any], told: str
) -> None:
    once = [failing]
    database = Database(writing.url, password=lambda: once.pop()() if once else writing.secret)
    with Writer(database) as writer:
        assert isinstance(writer.write(workload_s.car_created()), Receipt)
    once += [failing] * 2
    with pytest.raises(psycopg.OperationalError, match=told) as raised:
        database.connect()
    assert "secret" not in str(raised.value)
    with pytest.raises(psycopg.OperationalError, match=told):
        await database.connect_async()


def test_aurora_dsql_has_no_password() -> None:
    url = "dsql://admin@abc.dsql.us-east-1.on.aws/postgres"
    with pytest.raises(SettingsError, match="IAM signs a token"):
        Database(url, password=lambda: "secret")
    with pytest.raises(TypeError, match="is a function") as raised:
        Database("postgresql://h", password="secret")  # type: ignore[arg-type]
    assert "secret'" not in str(raised.value)
