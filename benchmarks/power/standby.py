"""A PostgreSQL whose standby is promoted without the last commits."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import parse_qs, urlsplit

import psycopg
from tests.support.waiting import wait_until

from dsql_outbox.servers.postgres_account import make_for_server, server_options
from dsql_outbox.servers.postgres_programs import server_programs
from dsql_outbox.servers.server_process import ServerProcess
from dsql_outbox.testing import EmbeddedPostgres

_RULES: Final = """local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
"""
_BEHIND: Final = """SELECT coalesce(bool_and(replay_lsn < pg_current_wal_lsn()), true)
    FROM pg_stat_replication"""


class ReplicatedPostgres:
    """A primary and an asynchronous standby. `promote` lets the standby take its place and port."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o711)  # started by root, the servers run as another user
        rules = folder / "rules"
        rules.write_text(_RULES)
        self._rules = str(rules)
        self._folder = folder / "standby"
        make_for_server(self._folder)
        self._log = folder / "log"
        self._serving = self._server(None)

    @property
    def url(self) -> str:
        """The URL of the server that serves, the same after `promote`."""
        return self._serving.url

    def start(self) -> None:
        """Start the primary, and copy it for the standby."""
        self._serving.start()
        self._serving.log.chmod(0o644)  # it lies among what is copied
        url = urlsplit(self._serving.socket_url)
        login = ["-h", parse_qs(url.query)["host"][0], "-p", str(url.port), "-U", "postgres"]
        self._run("pg_basebackup", *login, "-D", str(self._folder), "-R", "-c", "fast")

    def follow(self) -> None:
        """Let the standby get all that is committed now, and nothing later."""
        process = self._standby()
        with psycopg.connect(self.url, autocommit=True) as connection:
            wait_until(lambda: connection.execute(_BEHIND).fetchone() == (False,))
        process.stop()

    def promote(self) -> None:
        """Kill the primary, and promote the standby."""
        port = urlsplit(self.url).port
        assert port is not None
        self._serving.kill()
        process = self._standby()
        self._run("pg_ctl", "promote", "-s", "-D", str(self._folder))
        process.stop()
        self._serving.close()
        self._serving = self._server(self._folder, port)
        self._serving.start()

    def close(self) -> None:
        """Stop the server."""
        self._serving.close()

    def _server(self, folder: Path | None, port: int = 0) -> EmbeddedPostgres:
        settings = {"hba_file": self._rules}
        return EmbeddedPostgres(folder, settings=settings, port=port, password="power")

    def _standby(self) -> ServerProcess:
        flags = [
            "-clisten_addresses=",
            f"-cunix_socket_directories={self._folder}",
            f"-chba_file={self._rules}",
            "-cwal_retrieve_retry_interval=100",
        ]
        command = [str(server_programs() / "postgres"), "-D", str(self._folder), *flags]
        process = ServerProcess("standby", command, self._log, **server_options())
        state = self._folder / "postmaster.pid"
        process.wait_until_ready(
            lambda: state.exists() and state.read_text().strip()[-5:] == "ready"
        )
        return process

    def _run(self, program: str, *words: str) -> None:
        subprocess.run([server_programs() / program, *words], check=True, **server_options())


@contextmanager
def replicated_postgres() -> Generator[ReplicatedPostgres]:
    """Both servers for a while."""
    with TemporaryDirectory(prefix="power-") as folder:
        servers = ReplicatedPostgres(Path(folder))
        try:
            servers.start()
            yield servers
        finally:
            servers.close()
