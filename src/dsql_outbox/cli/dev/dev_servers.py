"""The servers of `dev`: on the same ports with the same secret each time, one `dev` per folder."""

import os
import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Final, NamedTuple

from dsql_outbox.outbox.errors import OutboxError, SettingsError
from dsql_outbox.servers.nats_server import NatsServer
from dsql_outbox.servers.postgres_server import EmbeddedPostgres
from dsql_outbox.servers.private_files import kept_secret, try_lock
from dsql_outbox.servers.server_process import free_port

from .activity import LOG_SETTINGS

HOST: Final = "127.0.0.1"
_POSTGRES: Final = 15432
_NATS: Final = 14222
_CLAIM: Final = 19463
_SECRET: Final = "password"  # noqa: S105 - the name of its file
_OWNER: Final = "dev.pid"

_SERVER_SETTINGS: Final = {
    **LOG_SETTINGS,
    # Conflicts occur as on Aurora DSQL, whose only isolation level this is.
    "default_transaction_isolation": "repeatable read",
}


class DevServers(NamedTuple):
    """The running servers, and the secret of both."""

    postgres: EmbeddedPostgres
    nats: NatsServer
    secret: str
    preferred: Callable[[int], int]

    def port_for(self, port: int) -> int:
        """The port to use in place of a given one."""
        return free_port(self.preferred(port))

    def lost(self) -> str | None:
        """The server that has ended by itself, if one has."""
        named = {"PostgreSQL": self.postgres, "NATS": self.nats}
        return next((name for name, server in named.items() if not server.is_running()), None)


@contextmanager
def dev_servers(folder: Path | None) -> Generator[DevServers]:
    """Run both servers during the block. Data and secret are kept in `folder`, if there is one.

    Raises as `owned` does, `MissingExtra` when no servers are installed, and `OutboxError`
    when one does not start, or another runs in the folder.
    """
    with ExitStack() as stack:
        preferred = stack.enter_context(_preferred_ports())
        if folder is not None:
            stack.enter_context(owned(folder))
        # It is kept, so that URLs stay the same.
        secret = token_hex(16) if folder is None else kept_secret(folder / _SECRET)
        postgres = EmbeddedPostgres(
            folder and folder / "postgres",
            settings=_SERVER_SETTINGS | ({"fsync": "off"} if folder is None else {}),
            port=preferred(_POSTGRES),
            password=secret,
        )
        nats = NatsServer(folder and folder / "nats", port=preferred(_NATS), token=secret)
        stack.enter_context(postgres)
        if not postgres.is_running():  # it runs already, so its end would not be noticed
            raise OutboxError(
                f"another PostgreSQL runs in {folder} (process {postgres.pid}): "
                "end it, or name another folder"
            )
        stack.enter_context(nats)
        yield DevServers(postgres, nats, secret, preferred)


@contextmanager
def _preferred_ports() -> Generator[Callable[[int], int]]:
    """Yield a function that returns its port; but 0, any, if another `dev` runs on this machine."""
    with socket.socket() as claim:
        try:
            claim.bind((HOST, _CLAIM))
        except OSError:
            yield lambda _: 0
        else:
            yield lambda port: port


@contextmanager
def owned(folder: Path) -> Generator[None]:
    """Make `folder` and let this process own it during the block.

    Raises `SettingsError` if another process owns it or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _OWNER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SettingsError(
            f"folder {folder} cannot be used: {error.strerror}; name another"
        ) from error
    with os.fdopen(handle, "r+", encoding="ascii") as owner:
        if not try_lock(handle):
            raise SettingsError(
                f"`dsql-outbox dev` already runs in {folder} (process {owner.read()}): "
                "end it, or name another folder"
            )
        owner.truncate()
        owner.write(str(os.getpid()))
        owner.flush()
        yield
