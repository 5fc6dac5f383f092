"""A publisher says once what its broker may lose of what it has acknowledged."""

from collections.abc import Collection, Sequence

import pytest
from tests.support.publisher.running_relays import event, quick_settings, until

from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.publisher import Publisher
from dsql_outbox.publisher.relay import receipt_watch
from dsql_outbox.publisher.sinks.port import Keeping
from dsql_outbox.testing import MemorySink, NatsServer
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio


class AskedSink(MemorySink):
    """A sink whose broker keeps each topic badly, and which fails when it is asked first."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.asked: list[set[str]] = []
        self._refusals = failures

    async def keeping(self, topics: Collection[str], /) -> Sequence[Keeping]:
        """Fail, or tell of each topic."""
        self.asked.append(set(topics))
        if len(self.asked) <= self._refusals:
            raise OSError("s3cr3t")
        return [Keeping(f"topic {topic}", "1 copy", "make more") for topic in topics]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if "acknowledged message may be lost" in text]


async def test_a_stream_with_one_replica_is_told_once_at_the_start(
    database: Database,
    writer: Writer,
    nats_server: NatsServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = f"{nats_server.url}?stream=EVENTS"
    async with Publisher(database, sink, quick_settings()):
        await until(lambda: told(caplog) != [])
        writer.write(event("car-1"))
        writer.write(event("car-2"))
    (text,) = told(caplog)
    assert text.startswith(
        "An acknowledged message may be lost: stream EVENTS: 1 replica, file storage; "
    )


async def test_a_topic_is_asked_about_once_after_its_first_delivery(
    database: Database, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    sink = AskedSink()
    async with Publisher(database, sink, quick_settings()):
        writer.write(event("car-1"))
        await until(lambda: told(caplog) != [])
        writer.write(event("car-2"))
        await until(lambda: len(sink.messages) == 2)
    topics = {message.topic for message in sink.messages}
    assert [asked for asked in sink.asked if asked] == [topics]
    assert len(told(caplog)) == 1


async def test_a_broker_that_cannot_be_asked_is_asked_again_and_ends_nothing(
    database: Database,
    writer: Writer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receipt_watch, "_REST", 0.05)
    caplog.set_level("DEBUG", "dsql_outbox")
    sink = AskedSink(failures=3)
    async with Publisher(database, sink, quick_settings()):
        writer.write(event("car-1"))
        await until(lambda: told(caplog) != [])
    assert "s3cr3t" not in caplog.text


async def test_many_topics_are_asked_about_in_parts(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NATS is asked about one after the other, and a question has a time."""
    monkeypatch.setattr(receipt_watch, "_AT_ONCE", 2)
    sink = AskedSink()
    for n in range(5):
        writer.write(Event.new("CarCreated", [Entity("Car", f"car-{n}")], topic=f"events.T{n}"))
    async with Publisher(database, sink, quick_settings()):
        await until(lambda: len({topic for asked in sink.asked for topic in asked}) == 5)
    assert max(map(len, sink.asked)) == 2
