"""A publisher opens the sink of a URL or a factory by itself, and opens it again."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import psycopg
import pytest
from tests.support.publisher.running_relays import event, quick_settings, until

from dsql_outbox.operations import Health, HealthProbe
from dsql_outbox.outbox import Database, Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import Answer, Publisher, Sink
from dsql_outbox.publisher.sinks import KeptSink
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = [pytest.mark.anyio, pytest.mark.client]

SECRET = "s3cret"


class Broker:
    """Opens sinks that deliver to one `memory`; the test says what fails."""

    def __init__(self) -> None:
        self.memory = MemorySink()
        self.opened = self.closed = 0
        self.refusals: list[BaseException] = []
        self.defects: list[Exception] = []
        self.raises_for = ""
        """The key of the messages for which each call raises."""
        self.ended = anyio.Event()
        self.answers = True

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Sink]:
        """As a factory does that needs a task of its own."""
        if not self.answers:
            await anyio.sleep_forever()
        if self.refusals:
            raise self.refusals.pop(0)
        self.ended = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end, self.ended)
            self.opened += 1
            try:
                yield _Breaking(self)
            finally:
                self.closed += 1
                tasks.cancel_scope.cancel()

    async def _end(self, ended: anyio.Event) -> None:
        await ended.wait()
        raise ConnectionError(SECRET)


class _Breaking:
    system = "test"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if messages and self._broker.defects:
            raise self._broker.defects.pop(0)
        if any(message.key == self._broker.raises_for for message in messages):
            raise TypeError(SECRET)
        await self._broker.memory.publish(messages, answer)


@pytest.fixture
def broker() -> Broker:
    return Broker()


def of_a_class(broker: Broker) -> object:
    class Made(_Breaking):
        def __init__(self) -> None:
            super().__init__(broker)

    return Made


@pytest.mark.parametrize("way", [
    lambda broker: broker.memory,
    lambda broker: lambda: broker.memory,
    lambda broker: broker.open,
    of_a_class,
])  # fmt: skip
async def test_a_sink_a_factory_and_a_context_manager_are_one_to_a_publisher(
    database: Database, writer: Writer, broker: Broker, way: object
) -> None:
    writer.write(event("car"))
    publisher = Publisher(database, way(broker), quick_settings())  # type: ignore[operator]
    assert (await publisher.run(until_empty=True)).delivered == 1
    assert len(broker.memory.messages) == 1
    assert broker.opened == broker.closed


async def test_a_url_is_opened(database: Database, writer: Writer, tmp_path: Path) -> None:
    writer.write(event("car"))
    url = f"jsonl:{tmp_path / 'out'}"
    async with Publisher(database, url, quick_settings()):
        await until(lambda: (tmp_path / "out").read_text().count("\n") == 1)


async def test_a_broker_that_comes_late_is_waited_for(
    database: Database, writer: Writer, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled = asyncio.CancelledError()  # of something that the factory awaited
    broker.refusals = [SinkUnavailable("not yet 0"), cancelled, SinkUnavailable("not yet 2")]
    async with Publisher(database, broker.open, quick_settings()):
        assert broker.opened == 0
        writer.write(event("car"))
        await broker.memory.published(1)
    assert broker.opened == broker.closed == 1
    told = [r.getMessage() for r in caplog.records if r.name == "dsql_outbox"]
    assert [text for text in told if "sink" in text] == [
        "Cannot open the sink, the next attempt is in 0.1 s: not yet 0",
        "Cannot open the sink, the next attempt is in 0.2 s: the sink raised CancelledError",
        "Cannot open the sink, the next attempt is in 0.4 s: not yet 2",
    ]


@pytest.mark.parametrize("harm", ["raises", "ends"])
async def test_a_sink_that_fails_is_closed_and_opened_again(
    database: Database,
    writer: Writer,
    broker: Broker,
    harm: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Publisher(database, broker.open, quick_settings()):
        writer.write(event("car", 1))
        await broker.memory.published(1)
        if harm == "raises":
            broker.defects = [KeyError(SECRET)]
        else:
            broker.ended.set()
            await until(lambda: broker.closed == 1)
        writer.write(event("car", 2))
        await broker.memory.published(2)
    assert broker.opened == broker.closed == 2
    assert "Publisher opens its sink again: " in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_message_for_which_a_sink_raises_fails_and_the_others_are_sent(
    database: Database,
    writer: Writer,
    sql: psycopg.Connection,
    broker: Broker,
    caplog: pytest.LogCaptureFixture,
    is_open: bool,
) -> None:
    """Neither does the publisher wait for the broker, nor is the sink opened again."""
    broker.raises_for = "Car/car-77"
    written = writer.write_many([event(f"car-{n}", m) for n in range(300) for m in range(2)])
    bad = written[2 * 77]
    source = _Breaking(broker) if is_open else broker.open
    settings = quick_settings(attempts=3, topics={}, backoff_base=0.1)
    with anyio.fail_after(60):
        done = await Publisher(database, source, settings).run(until_empty=True)
    assert (done.delivered, done.dead, done.failed) == (598, 2, 4)
    assert len(broker.memory.messages) == 598
    letters = sql.execute("SELECT event_id, error, attempts FROM outbox.dead_letters").fetchall()
    assert (bad.event_id, "the sink raised TypeError", 3) in letters
    assert broker.opened == broker.closed == (0 if is_open else 1)
    assert SECRET not in caplog.text
    assert "for the broker" not in caplog.text
    assert str(bad.event_id) in caplog.text
    assert len(caplog.records) < 20


async def test_an_open_sink_that_fails_ends_the_publisher(
    database: Database, writer: Writer, broker: Broker
) -> None:
    writer.write(event("car"))
    broker.defects = [KeyError("x")]
    with pytest.raises(KeyError):
        await Publisher(database, _Breaking(broker), quick_settings()).run()


@pytest.mark.parametrize("after", [0, 1])
async def test_an_opening_that_can_never_work_ends_the_publisher(
    database: Database, writer: Writer, broker: Broker, after: int
) -> None:
    broker.refusals = [SinkUnavailable("not yet")] * after + [SettingsError("no such stream")]
    writer.write(event("car"))
    with pytest.raises(SettingsError, match="no such stream"):
        await Publisher(database, broker.open, quick_settings()).run()


async def test_a_stop_does_not_wait_for_an_opening(database: Database, broker: Broker) -> None:
    broker.answers = False
    with anyio.fail_after(10):
        done = await Publisher(database, broker.open, quick_settings()).run(max_seconds=0.1)
    assert done.delivered == 0


async def test_a_probe_opens_the_sink_of_an_idle_publisher(
    database: Database, broker: Broker
) -> None:
    health = Health()
    publisher = Publisher(database, broker.open, quick_settings(), hooks=[health])
    probe = HealthProbe(database, health)
    async with publisher, anyio.create_task_group() as tasks:
        broker.refusals = [SinkUnavailable("not yet")]
        broker.ended.set()
        await until(lambda: broker.closed == 1)
        probe.watch(publisher.sink)
        tasks.start_soon(probe.run)
        await until(lambda: health.broker == "cannot be reached")
        probe.watch(publisher.sink)
        await until(lambda: broker.opened == 2)
        probe.watch(publisher.sink)
        await until(lambda: health.ready().ready)
        tasks.cancel_scope.cancel()


async def test_a_sink_that_a_probe_has_opened_is_open_for_whoever_waits_for_it() -> None:
    broker = Broker()
    broker.refusals = [SinkUnavailable("away"), SinkUnavailable("away")]
    kept = KeptSink(broker.open, lambda sink: sink)
    rests = anyio.Event()

    def next_wait() -> float:
        rests.set()
        return 0.01

    async with kept.kept():
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kept.wait_until_open, next_wait)
                await rests.wait()
                while not kept.has_opened:  # as the probe of /readyz asks
                    with suppress(SinkUnavailable):
                        await kept.publish([], lambda *_: None)
                    await anyio.lowlevel.checkpoint()
        await kept.publish([], lambda *_: None)
        kept.give_up()
        await anyio.wait_all_tasks_blocked()
        assert broker.closed == 0, "calls that run may end"
    assert broker.opened == broker.closed == 1
