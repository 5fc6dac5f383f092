"""`dsql-outbox dev`: all of it runs, is counted, ends at once, and leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import httpx
import pytest
from tests.support.commands import Command
from tests.support.waiting import wait_until

from dsql_outbox.testing import EmbeddedPostgres

LONG = 60.0


@contextmanager
def dev(*words: object) -> Iterator[tuple[Command, dict[str, Any]]]:
    """A running `dev --json`, and its line `ready`."""
    with Command("dev", "--json", *words) as command:
        assert json.loads(command.line())["kind"] == "starting"
        yield command, next(line for line in lines_of(command) if line["kind"] == "ready")


def lines_of(command: Command) -> Iterator[dict[str, Any]]:
    while line := command.line():
        yield json.loads(line)


def password_in(ready: dict[str, Any]) -> str | None:
    return urlsplit(ready["database"]).password


def family(pid: int) -> set[int]:
    """The children of a process: servers and guards."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(after_name[1]) == pid and after_name[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def pasted(sample: list[str]) -> str:
    """Run the sample in a shell without our environment; return its standard error."""
    shell = ["env", "-i", "PATH=/usr/bin:/bin", "HOME=/", "/bin/sh", "-e"]
    done = subprocess.run(
        shell, input="\n".join(sample), capture_output=True, text=True, check=True, cwd="/"
    )
    assert len(done.stdout.splitlines()) == 20
    return done.stderr


def counted_until_delivered(command: Command, events: int) -> Counter[str]:
    counts = Counter[str]()
    for line in lines_of(command):
        assert line["kind"] == "change"
        counts.update({name: n for name, n in line.items() if isinstance(n, int)})
        if counts["written"] == counts["delivered"] == events:
            break
    return counts


def test_it_runs_counts_and_goes_on_after_a_kill(folder: Path) -> None:
    with dev(folder) as (command, ready):
        with urlopen(ready["health"]) as answer:
            assert json.load(answer)["ready"] is True
        with urlopen(ready["metrics"]) as answer:
            assert b"outbox" in answer.read()
        console, _, token = ready["console"].partition("login?token=")
        with httpx.Client(trust_env=False, follow_redirects=True) as browser:
            assert browser.get(console).url.path == "/login"
            assert browser.get(ready["console"]).url.path == "/"
            assert token == password_in(ready)
        told = pasted(ready["sample"])
        conflicts = re.search(r"(\d+) conflicts?\)", told)
        counts = counted_until_delivered(command, 20)
        assert conflicts is not None
        assert counts["conflicts"] == int(conflicts[1])
        assert counts["deadLetters"] == counts["failed"] == 0
        pasted(ready["sample"])  # what has left the outbox since is counted no second time
        counted_until_delivered(command, 20)

        with Command("dev", folder) as second:
            ended = second.finish()
        assert ended.code == 2
        assert f"already runs in {folder} (process {command.pid}): end it" in ended.err

        family_of_first = family(command.pid)
        assert len(family_of_first) == 4  # two servers, two guards
        command.signal(signal.SIGKILL)
        began = monotonic()
        with dev(folder) as (again, ready_again):
            assert ready_again["folder"] == str(folder)
            assert password_in(ready_again) == password_in(ready)
            assert all(map(is_gone, family_of_first))
            assert monotonic() - began < LONG
            family_of_second = family(again.pid)
            again.signal(signal.SIGINT)
            done = again.wait()
        assert done.code == 0
        assert json.loads(done.out.splitlines()[-1])["kind"] == "ended"
        assert all(map(is_gone, family_of_second))


def test_it_ends_when_a_server_has_ended_and_removes_its_data(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    with dev() as (command, ready):
        assert ready["folder"] is None
        (nats,) = [pid for pid in family(command.pid) if b"nats-server\0" in command_line(pid)]
        os.kill(nats, signal.SIGKILL)
        done = command.wait()
    assert done.code == 1
    assert "NATS has ended" in done.err
    assert list(folder.iterdir()) == []


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0] + b"\0"


def test_ctrl_c_during_the_start_ends_it_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(folder))
    with Command("dev") as command:
        assert b"starting" in command.line()
        wait_until(lambda: any(folder.iterdir()), timeout=30)
        command.signal(signal.SIGINT)
        done = command.wait()
    assert (done.code, done.err) == (0, "")
    assert done.out.decode().endswith("stopped: nothing was written\n")
    assert list(folder.iterdir()) == []


def test_the_first_line_comes_before_the_slow_imports() -> None:
    script = (
        "import sys; from dsql_outbox.cli.dev.dev_lines import DevLines\n"
        "import dsql_outbox.cli.dev.command; DevLines(as_json=False).starting(None)\n"
        "print([name for name in sys.argv[1:] if name in sys.modules])"
    )
    slow = ["dsql_outbox.publisher", "dsql_outbox.servers", "opentelemetry.sdk", "rich"]
    done = subprocess.run(
        [sys.executable, "-c", script, *slow], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["starting PostgreSQL and NATS in a temporary folder", "[]"]


def test_a_folder_where_another_postgresql_runs_is_refused(folder: Path) -> None:
    with EmbeddedPostgres(folder / "postgres", settings={"fsync": "off"}) as other:
        with Command("dev", folder) as command:
            done = command.finish()
        assert other.is_running()
    assert done.code == 1
    assert f"another PostgreSQL runs in {folder} (process {other.pid}): end it" in done.err
