"""Events with a topic and headers of their own: every way to write keeps both."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import anyio
import psycopg
import pytest
from tests.support.waiting import wait_until
from tests.support.writer.callers import QUICK, OpenWriter
from tests.support.writer.checked_tables import Tables
from tests.support.writer.transacts import OpenTransactor, open_transactor

from dsql_outbox.outbox import Database, DuplicateEvent, Entity, Event, InvalidEvent, JsonEvent
from dsql_outbox.writer import AsyncWriter, Writer

__all__ = ["open_transactor"]

OWN = {"tenant": 'Zoë "車"\\', "correlationid": "c-1"}
FORMS = pytest.mark.parametrize("form", ["single", "plain"])

Form = Literal["single", "plain"]


def made(*cars: str, own: bool = True) -> Event:
    entities = [Entity("Car", car) for car in cars or ("C-1",)]
    given: dict[str, Any] = {"topic": "cars.vip", "headers": OWN} if own else {}
    return Event.new("CarSold", entities, **given)


def as_json(*cars: str) -> JsonEvent:
    return JsonEvent(made(*cars, own=False).to_json(), "cars.vip", OWN)


def messages(tables: Tables) -> list[tuple[str, dict[str, str], dict[str, str] | None]]:
    """Topic, own headers of the message, and what is stored for a replay, in order."""
    rows = tables.execute(
        "SELECT o.topic, o.headers::text AS sent, b.headers::text AS stored, b.topic AS kept"
        " FROM outbox.outbox o JOIN outbox.business_events b ON b.id = o.event_id"
        " ORDER BY o.position"
    )
    assert [row["topic"] for row in rows] == [row["kept"] for row in rows]
    return [
        (
            row["topic"],
            {k: v for k, v in json.loads(row["sent"]).items() if k in OWN},
            None if row["stored"] is None else json.loads(row["stored"]),
        )
        for row in rows
    ]


WITH = ("cars.vip", OWN, OWN)
WITHOUT: Any = ("events.CarSold", {}, None)


@FORMS
@pytest.mark.parametrize("make", [made, as_json])
@pytest.mark.parametrize("cars", [["C-1"], ["C-1", "C-2"]])
def test_a_write_keeps_topic_and_headers(
    open_writer: OpenWriter,
    url: str,
    tables: Tables,
    form: Form,
    make: Callable[..., Event | JsonEvent],
    cars: list[str],
) -> None:
    writer = open_writer(url, replace(QUICK, form=form))
    writer.write(make(*cars))
    writer.write(made(*cars, own=False))
    assert messages(tables) == [WITH, WITHOUT]
    tables.assert_consistent()


@FORMS
def test_a_batch_keeps_them_for_each_of_its_events(url: str, tables: Tables, form: Form) -> None:
    batch = [made("A"), made("B", own=False), as_json("A", "B"), made("A", own=False)]
    with Writer(Database(url), replace(QUICK, form=form)) as writer:
        writer.write_many(batch)
        writer.write_many([made("Z", own=False)])
    found = messages(tables)
    assert sorted(found, key=str) == sorted([WITH, WITHOUT, WITH, WITHOUT, WITHOUT], key=str)
    tables.assert_consistent()


@FORMS
@pytest.mark.anyio
async def test_coalesced_writes_keep_them(url: str, tables: Tables, form: Form) -> None:
    writer = AsyncWriter(Database(url), replace(QUICK, coalesce=1, form=form))
    async with writer, anyio.create_task_group() as tasks:
        for n in range(20):
            tasks.start_soon(writer.write, made(f"C-{n}", own=bool(n % 2)))
    found = messages(tables)
    assert (found.count(WITH), found.count(WITHOUT)) == (10, 10)


@FORMS
def test_a_transaction_keeps_them(
    open_transactor: OpenTransactor, url: str, tables: Tables, form: Form
) -> None:
    def work(run: Any) -> None:
        run.append(as_json())
        entities = [Entity("Car", "C-1")]
        event = Event.new("CarSold", entities, topic="cars.vip", headers=OWN)
        run.append(event)

    open_transactor(url, replace(QUICK, form=form)).transact(work)
    assert messages(tables) == [WITH, WITH]


@FORMS
def test_a_transaction_of_the_caller_keeps_them(url: str, tables: Tables, form: Form) -> None:
    with (
        Writer(Database(url), replace(QUICK, form=form)) as writer,
        psycopg.connect(url) as mine,
    ):
        writer.append_to(mine, made())
    assert messages(tables) == [WITH]


def test_they_are_no_part_of_the_content(open_writer: OpenWriter, url: str) -> None:
    """A retry by another release or request may give others; those of the first write stay."""
    data = made(own=False).to_json()
    writer = open_writer(url)
    first = writer.write(JsonEvent(data, "cars.vip", OWN))
    again = writer.write(JsonEvent(data, "cars.new", {"tenant": "x"}), on_duplicate="return")
    assert (again.status, again.position) == ("duplicate", first.position)
    with pytest.raises(DuplicateEvent) as raised:
        writer.write(data)
    assert raised.value.same_content


def test_what_is_wrong_with_them_is_said_before_anything_is_sent(
    open_writer: OpenWriter, tables: Tables, url: str
) -> None:
    writer = open_writer(url)
    for wrong, path in [
        (made(own=False).to_json().replace(b"CarSold", b"Car Sold"), "eventHeader.eventType"),
        (JsonEvent(made(own=False).to_json(), topic="a b"), "topic"),
        (JsonEvent(made(own=False).to_json(), headers={"id": "1"}), "headers.id"),
    ]:
        with pytest.raises(InvalidEvent) as raised:
            writer.write(wrong)
        assert raised.value.path == path
    assert tables.events() == []
    wait_until(lambda: tables.others() == 0)  # no session but those that made the tables


def test_many_events_are_refused_one_by_one(url: str, tables: Tables) -> None:
    with Writer(Database(url), QUICK) as writer:
        wrong, good = writer.write_many(
            [JsonEvent(made("A").to_json(), headers={"a": ""}), made("B")]
        )
    assert isinstance(wrong, InvalidEvent)
    assert wrong.path == "headers.a"
    assert not isinstance(good, Exception)
    assert messages(tables) == [WITH]


@pytest.mark.parametrize("headers", [{f"h{n}": '"' * 1024 for n in range(20)}])
def test_the_largest_headers_are_stored_as_they_are(
    url: str, tables: Tables, headers: dict[str, str]
) -> None:
    events = [Event.new("A", [Entity("Car", car)], headers=headers) for car in "CD"]
    with Writer(Database(url), QUICK) as writer:
        writer.write_many(events)
    for row in tables.execute("SELECT headers::text AS headers FROM outbox.business_events"):
        assert json.loads(row["headers"]) == headers


def test_the_code_of_before_writes_beside_this_code(url: str, tables: Tables) -> None:
    """It does not name the column, which so is NULL."""
    with Writer(Database(url), QUICK) as writer:
        writer.write(made())
    tables.execute(
        "INSERT INTO outbox.business_events (id, event_name, event_type, saved_date, event_data,"
        " fingerprint, write_id, subject_type, subject_id, subject_version, shard, position, topic,"
        " touches, event_size, previous_position)"
        " SELECT gen_random_uuid(), event_name, event_type, saved_date, event_data,"
        " fingerprint, write_id, subject_type, 'C-2', 1, shard, 5, topic, touches, event_size, 0"
        " FROM outbox.business_events"
    )
    rows = tables.execute(
        "SELECT headers IS NULL AS none FROM outbox.business_events ORDER BY position"
    )
    assert [row["none"] for row in rows] == [True, False]
