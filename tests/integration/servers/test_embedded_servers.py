"""PostgreSQL and NATS from wheels: they start, survive a crash, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import nats
import psycopg
import pytest
from tests.support.waiting import wait_until

from dsql_outbox.outbox import MissingExtra, OutboxError, SettingsError
from dsql_outbox.servers import nats_server as nats_module
from dsql_outbox.servers import postgres_programs
from dsql_outbox.servers import postgres_server as postgres_module
from dsql_outbox.testing import EmbeddedPostgres, NatsServer

pytestmark = pytest.mark.usefixtures("copied_data")

AS_ROOT = os.geteuid() == 0
QUICK = {"fsync": "off"}


def rows(url: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]


def make_table(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("INSERT INTO t VALUES (1), (2)")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def python(script: str, *words: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_rows_survive_a_kill_and_a_restart() -> None:
    with EmbeddedPostgres(settings=QUICK) as server:
        url, pid = server.url, server.pid
        make_table(url)
        server.kill()
        assert is_gone(pid)
        with pytest.raises(psycopg.OperationalError, match="refused"):
            psycopg.connect(url)
        server.start()
        assert (server.url, rows(url)) == (url, [1, 2])
        assert server.pid != pid


def test_a_kill_ends_connections_and_leaves_no_backend() -> None:
    with EmbeddedPostgres(settings=QUICK) as server, psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        server.kill()
        wait_until(lambda: is_gone(row[0]))  # it has let go of its files already
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_two_servers_run_at_once_over_tcp_and_socket(postgres: EmbeddedPostgres) -> None:
    with EmbeddedPostgres(settings=QUICK | {"max_connections": "7"}) as other:
        make_table(other.socket_url)
        assert rows(other.url) == [1, 2]
        with psycopg.connect(other.url) as connection:
            assert connection.execute("SHOW max_connections").fetchone() == ("7",)
        assert other.pid != postgres.pid


def test_nothing_is_left_in_the_temporary_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with EmbeddedPostgres(settings=QUICK) as server, NatsServer() as broker:
        pids = [server.pid, broker.pid]
        assert any(folder.iterdir())
    assert [is_gone(pid) for pid in pids] == [True, True]
    assert list(folder.iterdir()) == []


def test_a_signal_while_the_temporary_folder_is_made_leaves_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = os.mkdir

    def make_and_interrupt(path: str, mode: int = 0o777) -> None:
        make(path, mode)
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(os, "mkdir", make_and_interrupt)
    with pytest.raises(KeyboardInterrupt), NatsServer():
        pass
    assert list(folder.iterdir()) == []


def test_databases_are_made_and_dropped_even_in_use(postgres: EmbeddedPostgres) -> None:
    url = postgres.create_database('odd "name"/?')
    with pytest.raises(psycopg.errors.DuplicateDatabase):
        postgres.create_database('odd "name"/?')
    with psycopg.connect(url) as connection:
        assert connection.info.dbname == 'odd "name"/?'
        postgres.drop_database('odd "name"/?')
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    postgres.drop_database('odd "name"/?')


def test_a_given_folder_is_kept(folder: Path) -> None:
    data = folder / "below" / "data"
    with EmbeddedPostgres(data, settings=QUICK) as server:
        make_table(server.url)
    with EmbeddedPostgres(data, settings=QUICK) as server:
        assert rows(server.url) == [1, 2]


def test_a_server_that_runs_in_the_folder_is_joined_and_left_running(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings=QUICK) as first:
        make_table(first.url)
        with EmbeddedPostgres(folder / "data", settings=QUICK) as second:
            assert (second.url, second.pid) == (first.url, first.pid)
            assert second.socket_url == first.socket_url
            with pytest.raises(OutboxError, match="not started by this process"):
                second.kill()
            second.stop()
        assert rows(first.url) == [1, 2]


def test_a_server_whose_starter_was_killed_is_not_joined(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its guard is about to stop it."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from dsql_outbox.testing import EmbeddedPostgres\n"
        "with EmbeddedPostgres(Path(sys.argv[1]), settings={'fsync': 'off'}) as server:\n"
        "    print(server.pid, server._process._guard._process.pid, flush=True)\n"
        "    time.sleep(600)"
    )
    asks, waits = Event(), Event()

    def waited(_: float) -> None:
        waits.set()
        asks.wait(30)

    with python(script, str(folder / "data")) as starter:
        assert starter.stdout is not None
        pid, guard = map(int, starter.stdout.readline().split())
        os.kill(guard, signal.SIGSTOP)
        starter.kill()
        starter.wait()
    monkeypatch.setattr(postgres_module, "sleep", waited)
    second = EmbeddedPostgres(folder / "data", settings=QUICK)
    opening = Thread(target=second.start)
    opening.start()
    try:
        assert waits.wait(30)
    finally:
        monkeypatch.undo()
        os.kill(guard, signal.SIGCONT)
        asks.set()
        opening.join(60)
    with second:
        assert second.pid != pid


def test_a_pid_file_of_a_crashed_server_is_no_running_server(folder: Path) -> None:
    with EmbeddedPostgres(folder / "data", settings=QUICK) as server:
        make_table(server.url)
        server.kill()
        with EmbeddedPostgres(folder / "data", settings=QUICK) as second:
            assert rows(second.url) == [1, 2]
            assert second.pid != server.pid


def test_a_stale_pid_file_that_leads_to_another_server_is_not_followed(
    folder: Path, postgres: EmbeddedPostgres
) -> None:
    with EmbeddedPostgres(folder / "data", settings=QUICK) as server:
        make_table(server.url)
        server.kill()
        pid_file = folder / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        lines[3] = postgres.url.rpartition(":")[2].partition("/")[0]
        pid_file.write_text("\n".join(lines))
        with EmbeddedPostgres(folder / "data", settings=QUICK) as second:
            assert second.url != postgres.url
            assert rows(second.url) == [1, 2]


def test_many_can_open_a_folder_at_the_same_moment(folder: Path) -> None:
    together, pids = Barrier(3, timeout=30), set[int]()

    def open_it() -> None:
        together.wait()
        with EmbeddedPostgres(folder / "data", settings=QUICK) as server:
            pids.add(server.pid)
            together.wait()  # nobody leaves before everybody has come

    threads = [Thread(target=open_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 1


def test_a_folder_with_other_files_is_refused_and_left_alone(folder: Path) -> None:
    (folder / "holiday.txt").write_text("sun")
    with pytest.raises(SettingsError, match="holds files, but no PostgreSQL data"):
        EmbeddedPostgres(folder).start()
    assert [path.name for path in folder.iterdir()] == ["holiday.txt"]
    assert folder.stat().st_uid == os.geteuid()


@pytest.mark.skipif(not AS_ROOT, reason="only root needs another user")
def test_root_is_told_when_the_folder_cannot_be_reached(folder: Path) -> None:
    folder.chmod(0o700)
    with pytest.raises(SettingsError, match=r"user nobody cannot reach folder .*parents"):
        EmbeddedPostgres(folder / "data").start()


def test_an_error_at_start_shows_the_end_of_the_log() -> None:
    with pytest.raises(OutboxError, match=r'ended with code 1 at start.*"no_such_setting"'):
        EmbeddedPostgres(settings={"no_such_setting": "1"}).start()


def test_what_was_not_started_says_so() -> None:
    with pytest.raises(OutboxError, match="has not been started"):
        _ = EmbeddedPostgres().url
    with pytest.raises(OutboxError, match="NATS is not running"):
        NatsServer().kill()


def test_without_the_wheels_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(postgres_programs, "find_spec", lambda _: None)
    monkeypatch.setattr(nats_module, "distribution", nothing)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingExtra, match=r"PostgreSQL needs the extra \[embedded\]"):
        EmbeddedPostgres().start()
    with pytest.raises(MissingExtra, match=r"NATS server needs the extra \[embedded\]"):
        NatsServer().start()


def test_nats_is_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with NatsServer() as server:
        assert not is_gone(server.pid)


@pytest.mark.anyio
async def test_nats_keeps_its_streams_over_a_kill() -> None:
    with NatsServer() as server:
        url = server.url
        client = await nats.connect(url)
        stream = client.jetstream()
        await stream.add_stream(name="events", subjects=["events.>"])
        await stream.publish("events.a", b"1")
        await client.close()
        server.kill()
        server.start()
        assert server.url == url
        client = await nats.connect(url)
        info = await client.jetstream().stream_info("events")
        await client.close()
        assert info.state.messages == 1


def test_a_folder_whose_nats_still_runs_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NatsServer(folder / "streams") as first:
        pid = first.pid
        monkeypatch.setattr(nats_module, "sleep", lambda _: first.stop())
        with NatsServer(folder / "streams"):
            assert is_gone(pid)
            monkeypatch.setattr(nats_module, "_LOCK", 0)
            with pytest.raises(OutboxError, match=r"another NATS has been running in .*: end it"):
                first.start()


def test_no_server_outlives_python_however_it_ends() -> None:
    script = (
        "from dsql_outbox.testing import EmbeddedPostgres, NatsServer\n"
        "p = EmbeddedPostgres(settings={'fsync': 'off'}); p.start(); n = NatsServer(); n.start()\n"
        "print(p.pid, n.pid, flush=True)"
    )
    endings = ["", "; 1 / 0"]
    processes = [python(script + ending) for ending in endings]
    for process in processes:
        out, error = process.communicate(timeout=30)
        pids = [int(word) for word in out.split()]
        assert [is_gone(pid) for pid in pids] == [True, True], error
    assert [process.returncode for process in processes] == [0, 1]


def test_a_killed_python_leaves_no_server_and_no_temporary_file(folder: Path) -> None:
    """The next start in the same folder waits until the server there has stopped."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "from dsql_outbox.testing import EmbeddedPostgres, NatsServer\n"
        f"p = EmbeddedPostgres(Path(sys.argv[1]), settings={QUICK}); p.start()\n"
        "n = NatsServer(); n.start(); print(p.pid, n.pid, flush=True); time.sleep(60)\n"
    )
    scratch, data = folder / "scratch", folder / "data"
    scratch.mkdir(mode=0o755)
    with python(script, str(data), env=os.environ | {"TMPDIR": str(scratch)}) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert any(scratch.iterdir())
        process.kill()
    wait_until(lambda: is_gone(pids[0]) or not is_ready(data))
    with EmbeddedPostgres(data, settings=QUICK) as second:
        assert second.pid != pids[0]
    wait_until(lambda: [is_gone(pid) for pid in pids] == [True, True])
    wait_until(lambda: list(scratch.iterdir()) == [])


def is_ready(data: Path) -> bool:
    try:
        return "ready" in (data / "postmaster.pid").read_text()
    except FileNotFoundError:  # the server has removed it, and is about to end
        return False


def test_ctrl_c_reaches_python_first_and_the_server_stops_in_order(folder: Path) -> None:
    script = (
        "import signal, time; from pathlib import Path\n"
        "import psycopg; from dsql_outbox.testing import EmbeddedPostgres\n"
        f"with EmbeddedPostgres(Path({str(folder / 'data')!r}), settings={QUICK}) as p:\n"
        "    try: print(p.pid, flush=True); time.sleep(60)\n"
        "    finally: psycopg.connect(p.url).close(); print('still there', flush=True)\n"
    )
    process = python(script, start_new_session=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    out, error = process.communicate(timeout=30)
    assert "still there" in out, error
    assert is_gone(pid)
    assert "database system is shut down" in (folder / "data" / "server.log").read_text()


@pytest.mark.skipif(not AS_ROOT, reason="the other tests run as a normal user then")
def test_it_runs_as_a_normal_user_too() -> None:
    script = (
        "import os, pwd, psycopg\n"
        "from dsql_outbox.testing import EmbeddedPostgres, NatsServer\n"
        "with NatsServer(): pass\n"  # imports all it needs, from where that user may not look
        "user = pwd.getpwnam('nobody')\n"
        "os.setgroups([]); os.setgid(user.pw_gid); os.setuid(user.pw_uid)\n"
        "with EmbeddedPostgres(settings={'fsync': 'off'}) as p, NatsServer() as n:\n"
        "    psycopg.connect(p.create_database('x')).close()\n"
        "    print(os.geteuid(), p.pid, n.pid)\n"
    )
    process = python(script, cwd="/")
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0, error
    uid, *pids = map(int, out.split())
    assert uid != 0
    assert [is_gone(pid) for pid in pids] == [True, True]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"file cannot be made: File exists; name another"):
        EmbeddedPostgres(tmp_path / "file").start()
