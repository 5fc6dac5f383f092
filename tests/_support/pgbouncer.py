"""A real pgbouncer that gives each transaction any of a few sessions."""

import shutil
import signal
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dsql_outbox.testing._postgres_user import give, server_options
from dsql_outbox.testing._process import EmbeddedServer, ServerProcess, free_port

PROGRAM: Final = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
"""Where Debian's package, and others, put it; None: it is not installed."""

_CONFIG: Final = """[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 500
server_idle_timeout = {idle}
query_wait_timeout = 20
log_connections = 0
log_disconnections = 0
"""


class PgBouncer(EmbeddedServer):
    """pgbouncer in front of the server of `url`, in transaction mode, as a context manager.

    At most `sessions` of the server's serve all clients of a database; one that is
    idle for `idle` seconds ends. Started by root it runs as PostgreSQL does.
    """

    def __init__(self, url: str, *, sessions: int = 3, idle: float = 600.0) -> None:
        super().__init__("pgbouncer", None, signal.SIGINT)
        self._server = conninfo_to_dict(url)
        self._sessions = sessions
        self._idle = idle
        self._port = free_port()

    def url(self, database: str) -> str:
        """The URL of a database of the server, by way of the pooler."""
        return (
            f"postgresql://{self._server.get('user', 'postgres')}@127.0.0.1:{self._port}/{database}"
        )

    def _launch(self, folder: Path, scratch: Path) -> ServerProcess:
        assert PROGRAM is not None, "pgbouncer is not installed"
        give(scratch)
        folder.mkdir(exist_ok=True)
        config = folder / "pgbouncer.ini"
        keys = ("host", "port", "user", "password")
        server = " ".join(f"{key}={self._server[key]}" for key in keys if key in self._server)
        config.write_text(
            _CONFIG.format(server=server, port=self._port, sessions=self._sessions, idle=self._idle)
        )
        command = [PROGRAM, str(config)]
        process = ServerProcess("pgbouncer", command, folder / "server.log", **server_options())
        process.wait_until_ready(self._answers)
        return process

    def _answers(self) -> bool:
        database = str(self._server.get("dbname", "postgres"))
        try:
            psycopg.connect(self.url(database), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True
