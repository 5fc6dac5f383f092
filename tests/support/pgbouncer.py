"""A real pgbouncer that gives each transaction any of a few sessions."""

import os
import shutil
import signal
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from dsql_outbox.servers.postgres_account import server_options, server_owner
from dsql_outbox.servers.server_process import EmbeddedServer, ServerProcess, free_port

PROGRAM: Final = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
"""Where Debian's package, and others, put it; None: it is not installed."""

_CONFIG: Final = """[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
admin_users = {user}
pool_mode = transaction
default_pool_size = 3
max_client_conn = 500
query_wait_timeout = 20
log_connections = 0
log_disconnections = 0
"""


class PgBouncer(EmbeddedServer):
    """pgbouncer in front of the server of `url`, in transaction mode, as a context manager.

    At most three of the server's sessions serve all clients of a database, who log in as
    the user of `url`. Started by root it runs as PostgreSQL does.
    """

    def __init__(self, url: str) -> None:
        super().__init__("pgbouncer", None, signal.SIGINT)
        self._server = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        self._port = free_port()

    def url(self, database: str) -> str:
        """The URL of a database of the server, by way of the pooler."""
        login = f"{self._server['user']}:{self._server['password']}"
        return f"postgresql://{login}@127.0.0.1:{self._port}/{database}"

    def is_quiet(self, database: str) -> bool:
        """Whether no client is connected to this database, and no session works for one."""
        with psycopg.connect(self.url("pgbouncer"), autocommit=True, row_factory=dict_row) as admin:
            pools = admin.execute("SHOW POOLS").fetchall()
        ours = [pool for pool in pools if pool["database"] == database]
        return not any(pool[kept] for pool in ours for kept in _KEPT)

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:
        assert PROGRAM is not None, "pgbouncer is not installed"
        scratch.chmod(0o711)  # pgbouncer may pass, and nobody can list it
        folder.mkdir(mode=0o711, exist_ok=True)
        users, config = folder / "users.txt", folder / "pgbouncer.ini"
        _write(users, f'"{self._server["user"]}" "{self._server["password"]}"\n')
        text = _CONFIG.format(**self._server, own_port=self._port, users=users)
        _write(config, text)
        command = [PROGRAM, str(config)]
        process = ServerProcess("pgbouncer", command, folder / "server.log", **server_options())
        process.wait_until_ready(self._answers)
        return process

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(self._server["dbname"]), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


_KEPT: Final = ("cl_active", "cl_waiting", "sv_active")


def _write(file: Path, text: str) -> None:
    """A file for the eyes of pgbouncer's user alone."""
    file.touch(mode=0o600)
    os.chown(file, server_owner(), -1)
    file.write_text(text)
