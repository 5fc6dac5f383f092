"""A real PostgreSQL, from a wheel."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from dsql_outbox.outbox import OutboxError, SettingsError

from ._postgres_user import give, hand_over, server_options, wheel_programs
from ._process import EmbeddedServer, ServerProcess, free_port

_HOST: Final = "127.0.0.1"
_CONNECT: Final = 5  # seconds
_LOCK: Final = 60.0  # seconds that another process may take to start a server in the same folder
_INITDB: Final = 60.0  # seconds
_PID_FILE_LINES: Final = 8


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """What a running server tells about itself in its folder."""

    pid: int
    port: int
    sockets: str
    ready: bool


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on 127.0.0.1 and a Unix socket, as a context manager.

    `folder` is its data folder and is kept; without one, the data goes at the
    end. A server that already runs in `folder` is joined, and left running.
    `settings` are server settings, as in ``{"fsync": "off"}``. `programs` is the
    folder of another PostgreSQL's initdb and postgres, instead of the wheel's.
    Anybody on this machine may connect as user postgres, without a password.

    Started by root it runs as user nobody. Raises on start: `MissingExtra`
    without the wheel, `SettingsError` for a folder that cannot work,
    `OutboxError` when the server does not become ready.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        programs: Path | None = None,
    ) -> None:
        super().__init__("PostgreSQL", folder and folder.absolute(), signal.SIGINT)
        self._programs = programs
        self._settings = dict(settings)
        self._port = 0
        self._postmaster: _Postmaster | None = None

    @property
    def url(self) -> str:
        """The URL of database postgres over TCP, the same after a restart."""
        return self._url("postgres")

    @property
    def socket_url(self) -> str:
        """The URL of database postgres over the Unix socket, which is quicker than TCP."""
        known = self._known()
        return f"postgresql://postgres@:{known.port}/postgres?host={quote(known.sockets, safe='')}"

    @property
    def pid(self) -> int:
        """The id of the server's first process; raises `OutboxError` before the start."""
        return self._known().pid

    def create_database(self, name: str) -> str:
        """Make an empty database and return its URL; raises the driver's error if it exists."""
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, with all connections to it; quiet when there is none."""
        self._execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess | None:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(
                f"folder {folder} cannot be made: {error.strerror}; name another"
            ) from error
        with _only_one(folder):
            self._postmaster = _running(folder)
            return None if self._postmaster else self._start_in(folder, scratch)

    def _start_in(self, folder: Path, scratch: Path) -> ServerProcess:
        binaries = self._programs or wheel_programs()
        give(scratch)
        if not (folder / "PG_VERSION").exists():
            _initialize(binaries, folder)
        command = [str(binaries / "postgres"), "-D", str(folder), *self._flags(scratch)]
        process = ServerProcess(self._name, command, folder / "server.log", **server_options())
        self._process = process  # from here on it is stopped, whatever happens
        process.wait_until_ready(lambda: self._is_ready(folder, process.pid))
        return process

    def _flags(self, sockets: Path) -> Iterator[str]:
        self._port = self._port or free_port()
        own = {
            "listen_addresses": _HOST,
            "port": str(self._port),
            "unix_socket_directories": str(sockets),
            # In its folder, not in /dev/shm, where a killed server would leave it for good.
            "dynamic_shared_memory_type": "mmap",
        }
        for name, value in (own | self._settings).items():
            yield from ("-c", f"{name}={value}")

    def _is_ready(self, folder: Path, pid: int) -> bool:
        self._postmaster = _read_pid_file(folder)
        return self._postmaster is not None and self._postmaster.ready and self._known().pid == pid

    def _known(self) -> _Postmaster:
        if self._postmaster is None:
            raise OutboxError("PostgreSQL has not been started")
        return self._postmaster

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@{_HOST}:{self._known().port}/{quote(database, safe='')}"

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True, connect_timeout=_CONNECT) as connection:
            connection.execute(statement)


def _initialize(binaries: Path, folder: Path) -> None:
    hand_over(folder)
    command = [str(binaries / "initdb"), "-D", str(folder), "-U", "postgres", "-A", "trust"]
    quick = ["-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
    done = subprocess.run(  # noqa: S603 - our command
        [*command, *quick],
        capture_output=True,
        text=True,
        timeout=_INITDB,
        check=False,
        **server_options(),
    )
    if done.returncode != 0:
        raise OutboxError(f"initdb failed in {folder}: {done.stderr.strip()}")


@contextmanager
def _only_one(folder: Path) -> Generator[None]:
    """Let one process at a time look for a server in `folder` and start one."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    deadline = monotonic() + _LOCK
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > deadline:
                raise OutboxError(
                    f"another process has been starting PostgreSQL in {folder} for {_LOCK:.0f} s"
                ) from None
            sleep(0.01)


def _running(folder: Path) -> _Postmaster | None:
    """The server that already runs in `folder`, or None."""
    found = _read_pid_file(folder)
    if found is None or not found.ready:
        return None
    # After a crash the file stays, and another server may have the port by now: ask.
    try:
        with psycopg.connect(
            host=_HOST, port=found.port, user="postgres", connect_timeout=_CONNECT
        ) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
    except psycopg.OperationalError:
        return None
    return found if row and Path(row[0]) == folder.resolve() else None


def _read_pid_file(folder: Path) -> _Postmaster | None:
    """What ``postmaster.pid`` says: process, port (line 4), socket folder (5), state (8)."""
    try:
        lines = (folder / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    if len(lines) < _PID_FILE_LINES:  # still being written
        return None
    return _Postmaster(int(lines[0]), int(lines[3]), lines[4], ready=lines[7].strip() == "ready")
