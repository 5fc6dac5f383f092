"""The log says which topics an operator has paused, and that they go again."""

import logging

import pytest
from tests.support.publisher.running_relays import event, quick_settings, until

from dsql_outbox.operations import Topics
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher
from dsql_outbox.publisher.relay import reader
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer

pytestmark = pytest.mark.anyio


async def test_what_an_operator_pauses_and_resumes_is_one_line_each(
    database: Database,
    writer: Writer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "_REFRESH", 0.0)
    caplog.set_level(logging.INFO, "dsql_outbox")
    writer.write(event("car"))
    sink = MemorySink()
    async with Topics(database) as topics:
        for topic in ("events.CarCreated", "events.CarMoved"):
            await topics.pause(topic, "broken")
        async with Publisher(database, sink, quick_settings()):
            await until(lambda: "Paused" in caplog.text)
            await topics.resume("events.CarCreated")
            await sink.published(1)
            await until(lambda: "Resumed" in caplog.text)
    told = [line for line in caplog.messages if "by an operator" in line]
    assert told == [
        "Paused by an operator: events.CarCreated, events.CarMoved",
        "Resumed by an operator: events.CarCreated",
    ]
