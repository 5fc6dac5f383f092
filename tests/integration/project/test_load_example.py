"""The Lambda function served on this machine, and the load that is sent to it: two programs."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest
from tests.support.lambda_functions import EVENTS, FOLDER
from tests.support.proxy.postgres_proxy import OutboxProxy
from tests.support.waiting import wait_until
from tests.support.writer.checked_tables import Tables

pytestmark = pytest.mark.slow

TYPES = ["CarCreated", "CarServiceDone", "LoanCreated", "LoanPaymentSubmitted"]
SERVING = re.compile(r"serving on (?P<url>http://127\.0\.0\.1:\d+)/api/v1/events, (\d+) requests")
TIMEOUT = 30  # seconds; a safety net


class Server(NamedTuple):
    """``serve.py`` while it runs."""

    process: "subprocess.Popen[str]"
    url: str

    def workers(self) -> list[int]:
        """The processes that answer."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        if not children.exists():
            pytest.skip("processes are found by /proc")
        return [int(pid) for pid in children.read_text().split()]


@contextmanager
def serving(database: str | None) -> Generator[Server]:
    hidden = ("OTEL_", "DSQL_OUTBOX_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    env |= {"DSQL_OUTBOX_DATABASE": database} if database else {}
    with subprocess.Popen(
        [sys.executable, FOLDER / "serve.py", "--port", "0"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := SERVING.match(line):
                    yield Server(process, found["url"])
                    break
            else:
                raise AssertionError(process.communicate()[1])
        finally:
            process.terminate()
            try:
                process.communicate(timeout=TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def load(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FOLDER / "load.py", "--url", url, *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.fixture
def server(faulty: OutboxProxy) -> Iterator[Server]:
    """The function, behind HTTP."""
    with serving(faulty.url) as server:
        yield server


def stored_types(tables: Tables) -> Counter[str]:
    return Counter(json.loads(row["data"])["eventHeader"]["eventType"] for row in tables.events())


def test_every_event_is_stored_and_counted_each_time(server: Server, tables: Tables) -> None:
    for run in (1, 2):
        done = load(server.url, "--events-per-type", "5", "--workers", "4", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        numbers = json.loads(done.stdout)
        assert list(numbers["types"]) == TYPES
        for row in numbers["types"].values():
            assert (row["sent"], row["stored"], row["retries"]) == (5, 5, 0)
        total = numbers["total"]
        assert (total["sent"], total["stored"]) == (20, 20)
        assert 0 < total["p50_ms"] <= total["p95_ms"] <= total["p99_ms"]
        assert stored_types(tables) == dict.fromkeys(TYPES, 5 * run)
    assert len(tables.entities()) == 40
    tables.assert_consistent()


def test_hot_events_share_cars_and_all_arrive_in_spite_of_conflicts(
    server: Server, faulty: OutboxProxy, tables: Tables
) -> None:
    faulty.conflicts(3)
    done = load(server.url, "--hot")
    assert done.returncode == 0, done.stdout + done.stderr
    retries = re.search("20 of 20 stored, ([0-9]+) retries for ", done.stdout)
    assert retries is not None, done.stdout
    assert int(retries[1]) >= 3  # snapshots conflict of themselves, too
    for name in TYPES:
        assert re.search(rf"^ {name} +5 +5 +\d", done.stdout, re.MULTILINE), done.stdout
    assert done.stderr == ""
    assert stored_types(tables) == dict.fromkeys(TYPES, 5)
    cars = [row["version"] for row in tables.entities() if row["entity_type"] == "Car"]
    assert cars == [4] * 5
    tables.assert_consistent()


def test_each_process_that_answers_has_one_connection_of_its_own(
    server: Server, faulty: OutboxProxy
) -> None:
    """As in Lambda: requests meet each other in the database only."""
    load(server.url, "--events-per-type", "10", "--workers", "8")
    assert 1 < faulty.opened <= 4
    assert faulty.closed == 0


def test_failures_are_counted_by_kind_and_end_in_a_1(database_url: str) -> None:
    with serving(database_url) as server:
        done = load(server.url, "--events-per-type", "2")
    assert done.returncode == 1
    assert "0 of 8 stored" in done.stdout
    assert "failed 8: 500 Error processing event: it is not stored SchemaError" in done.stdout
    done = load(server.url, "--events-per-type", "1", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failures"] == {"[Errno 111] Connection refused": 4}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["localhost"], "must begin with http:// or https://"),
        (["http://localhost", "--workers", "0"], "must be 1 or more, got 0"),
    ],
)
def test_a_wrong_option_is_refused(options: list[str], text: str) -> None:
    done = load(*options)
    assert done.returncode == 2
    assert text in done.stderr


def test_without_a_database_one_is_started() -> None:
    with serving(None) as server:
        assert load(server.url, "--events-per-type", "1").returncode == 0


def test_a_body_that_is_no_text_reaches_the_function_as_base64(server: Server) -> None:
    with pytest.raises(OSError, match="400"):
        urlopen(f"{server.url}{EVENTS}", b"\xff\xfe", timeout=TIMEOUT)


def is_running(pid: int) -> bool:
    """Whether a process is there; one that has ended and was not asked for yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_server(server: Server, number: signal.Signals) -> None:
    workers = server.workers()
    assert len(workers) == 4
    server.process.send_signal(number)
    code = server.process.wait(TIMEOUT)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    wait_until(lambda: not any(map(is_running, workers)))


def test_the_server_ends_with_its_first_worker(server: Server) -> None:
    first, *others = server.workers()
    os.kill(first, signal.SIGKILL)
    assert server.process.wait(TIMEOUT) == 1
    assert server.process.stderr is not None
    assert "error: a worker has ended" in server.process.stderr.read()
    assert not any(map(is_running, others))
