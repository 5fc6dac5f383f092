"""Embedded servers open nothing to the machine's other users, and follow none of their links."""

import os
import socket
import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from dsql_outbox.cli.database_options import open_database
from dsql_outbox.outbox import OutboxError, SettingsError
from dsql_outbox.testing import EmbeddedPostgres, NatsServer

pytestmark = pytest.mark.usefixtures("copied_data")

QUICK = {"fsync": "off"}
STRANGER = 60_123
"""The id of a user who runs nothing of ours."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def become(user: int) -> None:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)


def refused_as(stranger: int, where: dict[str, Any]) -> str:
    """What libpq says to another user; the empty text if it lets him in."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become(stranger)
            psycopg.connect(**where, connect_timeout=3).close()
        except psycopg.OperationalError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, encoding="utf-8") as told:
        return told.read()


def without_password(url: str) -> dict[str, Any]:
    found = urlsplit(url)
    return {"host": found.hostname, "port": found.port, "user": "postgres", "dbname": "postgres"}


def test_over_tcp_nobody_gets_in_without_the_password() -> None:
    with EmbeddedPostgres(settings=QUICK) as server:
        psycopg.connect(server.url).close()
        where = without_password(server.url)
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(**where)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(**where, password="postgres")


@as_root
def test_another_user_gets_in_neither_by_tcp_nor_by_socket() -> None:
    with EmbeddedPostgres(settings=QUICK) as server:
        where = without_password(server.url)
        sockets = server._known().sockets
        assert "no password supplied" in refused_as(STRANGER, where)
        assert "Permission denied" in refused_as(STRANGER, where | {"host": sockets})
        psycopg.connect(server.socket_url).close()


def test_the_password_is_in_no_command_line_and_in_no_log(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings=QUICK | {"log_statement": "all"}) as server:
        password = urlsplit(server.url).password
        assert password
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = process.read_bytes()
            except OSError:  # it has ended
                continue
            if int(process.parent.name) != os.getpid():
                assert password.encode() not in words
        log = folder / "data" / "server.log"
        assert password not in log.read_text()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        secret = Path(server._known().sockets).parent / "pgpass"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert secret.stat().st_uid == os.geteuid()


def test_a_second_process_gets_in_by_the_same_password(folder: Path) -> None:
    with (
        EmbeddedPostgres(folder / "data", settings=QUICK) as first,
        EmbeddedPostgres(folder / "data", settings=QUICK) as second,
    ):
        assert second.url == first.url
        psycopg.connect(second.url).close()


def test_a_data_folder_that_trusted_everybody_is_closed(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings=QUICK):
        pass
    trusting = "local all all trust\nhost all all 127.0.0.1/32 trust\n"
    (folder / "data" / "pg_hba.conf").write_text(trusting)
    with EmbeddedPostgres(folder / "data", settings=QUICK) as server:
        psycopg.connect(server.url).close()
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(**without_password(server.url))


def test_a_running_server_of_an_older_version_is_refused_with_what_to_do(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings=QUICK) as old:
        (Path(old._known().sockets).parent / "pgpass").unlink()
        with pytest.raises(OutboxError, match=rf"stop it \(process {old.pid}\), and start again"):
            EmbeddedPostgres(folder / "data", settings=QUICK).start()


@as_root
def test_root_writes_no_log_through_what_nobody_has_put_there(folder: Path) -> None:
    data, victim = folder / "data", folder / "victim"
    with EmbeddedPostgres(data, settings=QUICK):
        pass
    victim.write_text("mine")
    log = data / "server.log"
    for put in (log.symlink_to, log.hardlink_to, lambda _: os.mkfifo(log)):
        log.unlink()
        put(victim)
        with pytest.raises(SettingsError, match=r"log server\.log is a link .*remove it"):
            EmbeddedPostgres(data, settings=QUICK).start()
        assert victim.read_text() == "mine"


@as_root
def test_a_folder_of_another_user_and_a_link_to_one_are_refused(folder: Path) -> None:
    (folder / "theirs").mkdir()
    os.chown(folder / "theirs", STRANGER, STRANGER)
    with pytest.raises(SettingsError, match=r"theirs belongs to another user; name another"):
        EmbeddedPostgres(folder / "theirs").start()
    (folder / "ours").mkdir()
    (folder / "link").symlink_to(folder / "ours")
    with pytest.raises(SettingsError, match=r"folder .*link is a link; name another"):
        EmbeddedPostgres(folder / "link").start()
    assert (folder / "ours").stat().st_uid == 0
    assert (folder / "theirs").stat().st_uid == STRANGER


def test_the_command_line_opens_no_port(folder: Path) -> None:
    with (
        open_database(f"embedded:{folder / 'data'}", "outbox") as database,
        database.connect() as connection,
    ):
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def answer_to(server: NatsServer, greeting: str) -> bytes:
    """What NATS answers to a client, up to the answer to its PING or the end."""
    found = urlsplit(server.url)
    with socket.create_connection((str(found.hostname), found.port or 0), 3) as client:
        client.sendall(f"CONNECT {greeting}\r\nPING\r\n".encode())
        answer = b""
        while b"PONG" not in answer and (part := client.recv(4096)):
            answer += part
    return answer


def test_nats_asks_for_the_token_which_no_command_line_shows() -> None:
    with NatsServer() as server:
        token = urlsplit(server.url).username
        assert token
        assert b"PONG" in answer_to(server, f'{{"auth_token":"{token}"}}')
        assert b"Authorization Violation" in answer_to(server, "{}")
        words = Path(f"/proc/{server.pid}/cmdline").read_bytes()
        assert token.encode() not in words
        settings = Path(words.split(b"\0")[2].decode())
        assert stat.S_IMODE(settings.stat().st_mode) == 0o600
