"""examples/lambda, started by its one command: stores, relays, is killed in the middle, goes on."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.request import Request, urlopen

import anyio
import psycopg
import pytest
from nats.js.errors import NotFoundError
from tests.support.brokers.readable_brokers import NatsBroker
from tests.support.lambda_functions import FOLDER
from tests.support.publisher.running_relays import event
from tests.support.waiting import wait_until

from dsql_outbox import Database, Event
from dsql_outbox.schema import apply
from dsql_outbox.testing import NatsServer

pytestmark = pytest.mark.slow

CARS, EACH = 5, 8
PATIENCE = 60.0  # seconds; a safety net
SERVING = re.compile(r"serving on (http://\S+),")


@pytest.fixture
def database_with_tables(database_url: str) -> str:
    apply(Database(database_url))
    return database_url


@contextmanager
def serving(*options: str, **named: str) -> Generator[tuple[str, Callable[[], None]]]:
    """The example, its URL, and a way to kill all of its processes at once."""
    hidden = ("OTEL_", "DSQL_OUTBOX_", "AWS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    with subprocess.Popen(
        [sys.executable, FOLDER / "serve.py", "--port", "0", "--workers", "2", *options],
        env=env | named,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:

        def kill() -> None:
            os.killpg(process.pid, signal.SIGKILL)

        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := SERVING.match(line):
                    break
            else:
                raise AssertionError("it ended before it served")
            yield found[1], kill
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)
        finally:
            if process.poll() is None:
                kill()


def post(url: str, event: Event) -> int | None:
    """The status of one event, or None if nobody answered."""
    try:
        with urlopen(Request(url, event.to_json()), timeout=PATIENCE) as response:
            return int(response.status)
    except OSError as error:
        return getattr(error, "code", None)


def versions(broker: NatsBroker) -> dict[str, list[int]]:
    """The versions of each car, in the order of their first arrivals."""
    found: dict[str, list[int]] = {}
    try:
        arrived = anyio.run(broker.stored)
    except NotFoundError:  # nothing was relayed before the kill, and the stream comes with it
        arrived = []
    for message in arrived:
        version = int(message.headers["sequence"])
        found.setdefault(message.headers["subject"], []).append(version)
    return found


def test_each_event_is_relayed_once_and_in_order_though_all_is_killed_in_the_middle(
    database_with_tables: str, nats_server: NatsServer
) -> None:
    broker = NatsBroker(nats_server)
    named = {"DSQL_OUTBOX_DATABASE": database_with_tables, "DSQL_OUTBOX_SINK": broker.url}
    events = [event(f"{n % CARS}", n) for n in range(CARS * EACH)]
    with psycopg.connect(database_with_tables, autocommit=True) as sql:

        def stored() -> int:
            ((found,),) = sql.execute("SELECT count(*) FROM outbox.business_events").fetchall()
            return int(found)

        with serving(**named) as (url, kill), ThreadPoolExecutor(2) as clients:
            answers = [clients.submit(post, url, each) for each in events]
            wait_until(lambda: len(events) / 4 < stored(), PATIENCE)
            kill()
            answered = [answer.result() for answer in answers]
        assert None in answered, "it was in the middle of it"
        assert stored() >= answered.count(200) > 0

        with serving("--schedule", "1", **named) as (url, _):
            again = [post(url, each) for each in events]
            assert set(again) == {200, 409}
            assert stored() == len(events)
            wait_until(lambda: sum(map(len, versions(broker).values())) == len(events), PATIENCE)
        relayed = versions(broker)
    assert relayed == {f"Car/{car}": list(range(1, EACH + 1)) for car in range(CARS)}


def test_a_stored_event_rings_the_relay(database_with_tables: str, nats_server: NatsServer) -> None:
    broker = NatsBroker(nats_server)
    named = {"DSQL_OUTBOX_DATABASE": database_with_tables, "DSQL_OUTBOX_SINK": broker.url}
    with serving("--schedule", "600", **named) as (url, _):
        assert post(url, event("1")) == 200
        wait_until(lambda: versions_or_none(broker) == {"Car/1": [1]}, PATIENCE)


def versions_or_none(broker: NatsBroker) -> dict[str, list[int]] | None:
    """None until the first message has made the stream."""
    try:
        return versions(broker)
    except Exception:  # noqa: BLE001 - whatever the client says
        return None


def test_a_database_of_yours_is_not_relayed_without_a_sink(database_with_tables: str) -> None:
    with serving(DSQL_OUTBOX_DATABASE=database_with_tables) as (url, _):
        assert post(url, event("1")) == 200
        with psycopg.connect(database_with_tables) as sql:
            assert len(sql.execute("SELECT FROM outbox.outbox").fetchall()) == 1
            assert sql.execute("SELECT max(epoch) FROM outbox.outbox_leases").fetchone() == (0,)
