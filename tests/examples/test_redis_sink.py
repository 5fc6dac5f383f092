"""examples/redis_sink: the contract suite, and a publisher that is killed while it relays."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.support.brokers.broker_faults import losing_answers
from tests.support.brokers.redis_server import RedisBroker, RedisServer
from tests.support.checkout import ROOT
from tests.support.commands import Command, run
from uv import find_uv_bin

from dsql_outbox import Database, Entity, Event, Writer
from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher import Unavailable, open_sink
from dsql_outbox.publisher.sinks.registry import installed_sinks
from dsql_outbox.schema import apply
from dsql_outbox.testing import TcpProxy
from dsql_outbox.testing.sink_contract import OpenStage, SinkContract, new_message, published

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "redis_sink"
EVENTS, LOANS = 3000, 30


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed in, with its entry point."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    shutil.copytree(EXAMPLE, source / "redis_sink")
    options = ["--offline", "--quiet", "--no-deps", "--no-build-isolation"]
    place = ["--python", sys.executable, "--target", target, source / "redis_sink"]
    subprocess.run([find_uv_bin(), "pip", "install", *options, *place], check=True)
    return target


@pytest.fixture(autouse=True)
def _importable(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [str(installed), *sys.path])
    installed_sinks.cache_clear()  # a process looks once
    yield
    installed_sinks.cache_clear()


@pytest.fixture(scope="module")
def redis_server() -> Generator[RedisServer]:
    """A Redis for all tests of this file."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def broker(redis_server: RedisServer) -> Generator[RedisBroker]:
    """The server, empty."""
    redis_server.client.flushall()
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield RedisBroker(redis_server, proxy)


class TestRedisSink(SinkContract):
    """The suite, as another package runs it."""

    @pytest.fixture
    def open_stage(self, broker: RedisBroker) -> OpenStage:
        return partial(losing_answers, broker, broker.proxy, across_topics=False)


@pytest.mark.anyio
async def test_a_topic_that_is_no_stream_is_unavailable(broker: RedisBroker) -> None:
    broker.server.client.set("events.LoanCreated", "no stream")

    async with broker.open() as sink:
        (outcome,) = await published(sink, [new_message()])

    broker.server.client.delete("events.LoanCreated")
    assert isinstance(outcome, Unavailable)
    assert "WRONGTYPE" in outcome.error


@pytest.mark.parametrize(
    "url", ["redis://", "redis://a,b", "redis://a?db=1", "redis://a?timeout=0"]
)
def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="a Redis URL"):
        open_sink(url)


def test_the_command_knows_it(installed: Path) -> None:
    shown = run("publish", "--help", env={"PYTHONPATH": str(installed)}).out.decode()
    assert "redis:" in " ".join(shown.split())


def test_a_publisher_that_is_killed_loses_no_message_and_keeps_the_order(
    installed: Path, broker: RedisBroker, database_url: str
) -> None:
    database, redis = Database(database_url), broker.server.client
    apply(database)
    events = [
        Event.new("LoanPaid", [Entity("Loan", f"LOAN-{n % LOANS}", {"n": n})])
        for n in range(EVENTS)
    ]
    with Writer(database) as writer:
        written = [result.event_id for result in writer.write_many(events)]
    words = ["publish", "--database", database_url, "--sink", broker.url, "--lease", "1"]
    env = {"PYTHONPATH": str(installed)}

    with Command(*words, env=env) as publisher:
        assert redis.xread({"events.LoanPaid": 0}, block=30_000), "a message within 30 s"
        publisher.signal(signal.SIGKILL)
        assert publisher.finish().code == -signal.SIGKILL
    assert 0 < redis.xlen("events.LoanPaid") < EVENTS, "killed in the middle"
    done = run(*words, "--until-empty", env=env)

    assert done.code == 0, done.err
    arrived: dict[str, list[str]] = {}
    for stored in broker.server.stored():
        of_loan = arrived.setdefault(stored.headers["subject"], [])
        if stored.headers["id"] not in of_loan:
            of_loan.append(stored.headers["id"])
    assert arrived == {
        f"Loan/LOAN-{n}": [str(event_id) for event_id in written[n::LOANS]] for n in range(LOANS)
    }
