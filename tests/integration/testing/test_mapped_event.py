"""The test kit's `mapped` and `message_of`, beside what a publisher sends."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from dsql_outbox.outbox import Database, InvalidEvent, JsonEvent, Message
from dsql_outbox.publisher import MapFailed, Publisher, Refuse, WireForm
from dsql_outbox.testing import MemorySink, mapped, message_of
from dsql_outbox.writer import Writer, WriterSettings

DATED = datetime(2026, 11, 30, 10, tzinfo=UTC).isoformat()


def loan(**header: object) -> JsonEvent:
    entities = [
        {"entityHeader": {"entityType": "Loan", "entityId": "L 1/2"}, "total": 5},
        {"entityHeader": {"entityType": "Car", "entityId": "ä"}},
    ]
    head = {"uuid": str(uuid4()), "eventName": "Loan Paid", "eventType": "LoanPaid"} | header
    return JsonEvent({"eventHeader": head, "entities": entities}, headers={"tenant": "acme"})


@pytest.mark.anyio
@pytest.mark.parametrize("header", [{}, {"createdDate": DATED}], ids=["no date", "date"])
async def test_a_message_is_that_of_a_publisher(outbox_url: str, header: dict[str, str]) -> None:
    event, sink, database = loan(**header), MemorySink(), Database(outbox_url)
    settings = WriterSettings(source="/shop", topic="loans.{entity_type}")
    with Writer(database, settings) as writer:
        writer.write(event)
    await Publisher(database, sink).run(until_empty=True)
    (sent,), made = sink.messages, message_of(event, settings)
    own = {"position", "leaseepoch"} | ({"time"} if not header else set())
    assert made.headers.keys() == sent.headers.keys()
    assert {n: made.headers[n] for n in made.headers.keys() - own} == {
        n: sent.headers[n] for n in sent.headers.keys() - own
    }
    for name in ("event_id", "topic", "key", "payload", "dedupe_id", "attempt", "content_type"):
        assert getattr(made, name) == getattr(sent, name)


def test_an_event_is_mapped_and_compared_in_one_line(tmp_path: Path) -> None:
    def to_message(message: Message) -> WireForm:
        return WireForm({"loan": message.key}, attributes={"entities": None})

    golden = tmp_path / "loan_paid.json"
    golden.write_text('{"loan":"Loan/L 1/2"}')
    assert mapped(to_message, loan()).payload == golden.read_bytes()
    assert "entities" not in mapped(to_message, loan()).headers


def test_what_is_not_mapped_says_why() -> None:
    with pytest.raises(AssertionError, match="the map skips the message"):
        mapped(lambda _: None, loan())
    with pytest.raises(AssertionError, match="the map refuses the message: no number"):
        mapped(lambda _: Refuse("no number"), loan())
    with pytest.raises(MapFailed, match="the map raised ZeroDivisionError"):
        mapped(lambda _: 1 // 0, loan())
    with pytest.raises(InvalidEvent):
        message_of("{}")
