"""The servers of `dev`: on the same ports with the same secret each time, one `dev` per folder."""

import fcntl
import os
import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from time import monotonic, sleep
from typing import Final, NamedTuple

from dsql_outbox.outbox.errors import OutboxError, SettingsError
from dsql_outbox.servers.nats_server import NatsServer
from dsql_outbox.servers.postgres_server import EmbeddedPostgres
from dsql_outbox.servers.private_files import kept_secret
from dsql_outbox.servers.server_process import free_port, preferred_port

from .activity import LOG_SETTINGS

HOST: Final = "127.0.0.1"
_POSTGRES: Final = 15432
_NATS: Final = 14222
_CLAIM: Final = 19463
_SECRET: Final = "password"  # noqa: S105 - the name of its file
_OWNER: Final = "dev.pid"
_DIGITS: Final = 20
_STOP: Final = 20.0  # seconds that the servers of a killed process may take to stop

_SERVER_SETTINGS: Final = {
    **LOG_SETTINGS,
    # Conflicts occur as on Aurora DSQL, whose only isolation level this is.
    "default_transaction_isolation": "repeatable read",
}


class DevServers(NamedTuple):
    """The running servers, the secret of both, and a function that chooses more ports.

    It returns the port to use in place of a given one.
    """

    postgres: EmbeddedPostgres
    nats: NatsServer
    secret: str
    port_for: Callable[[int], int]

    def lost(self) -> str | None:
        """The server that has ended by itself, if one has."""
        named = {"PostgreSQL": self.postgres, "NATS": self.nats}
        return next((name for name, server in named.items() if not server.is_running()), None)


@contextmanager
def dev_servers(folder: Path | None) -> Generator[DevServers]:
    """Run both servers during the block. Data and secret are kept in `folder`, if there is one.

    Raises as `locked` does, `MissingExtra` when no servers are installed, and `OutboxError`
    when one does not start.
    """
    with ExitStack() as stack:
        port_for = stack.enter_context(_claimed_ports())
        lock = () if folder is None else (stack.enter_context(locked(folder)),)
        # It is kept, so that URLs stay the same.
        secret = token_hex(16) if folder is None else kept_secret(folder / _SECRET)
        postgres = EmbeddedPostgres(
            folder and folder / "postgres",
            settings=_SERVER_SETTINGS | ({"fsync": "off"} if folder is None else {}),
            port=port_for(_POSTGRES),
            password=secret,
            pass_fds=lock,
        )
        nats = NatsServer(
            folder and folder / "nats", port=port_for(_NATS), token=secret, pass_fds=lock
        )
        stack.enter_context(postgres)
        stack.enter_context(nats)
        yield DevServers(postgres, nats, secret, port_for)


@contextmanager
def _claimed_ports() -> Generator[Callable[[int], int]]:
    """Yield a function that chooses a port.

    The first `dev` on this machine gets the given ports, if they are free. Any other gets
    free ports.
    """
    with socket.socket() as claim:
        try:
            claim.bind((HOST, _CLAIM))
        except OSError:
            yield lambda _: free_port()
        else:
            yield preferred_port


@contextmanager
def locked(folder: Path) -> Generator[int]:
    """Make and lock `folder` for this process; yields a descriptor for its servers to inherit.

    It holds a second lock, on the folder itself. So if this process is killed, the next one
    waits until its servers have stopped.

    Raises `SettingsError` if another process has the folder or it cannot be made, and
    `OutboxError` if the servers of a killed process still run after 20 s.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            owner = os.open(folder / _OWNER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            stack.callback(os.close, owner)
            servers = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, servers)
        except OSError as error:
            raise SettingsError(
                f"folder {folder} cannot be used: {error.strerror}; name another"
            ) from error
        if not _lock(owner):
            raise SettingsError(
                f"`dsql-outbox dev` already runs in {folder} (process "
                f"{os.pread(owner, _DIGITS, 0).decode()}): end it, or name another folder"
            )
        os.truncate(owner, 0)
        os.pwrite(owner, str(os.getpid()).encode(), 0)
        deadline = monotonic() + _STOP
        while not _lock(servers):
            if monotonic() > deadline:
                raise OutboxError(
                    f"the servers of a killed `dsql-outbox dev` in {folder} still run after "
                    f"{_STOP:.0f} s: end them, or name another folder"
                )
            sleep(0.01)
        yield servers


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
