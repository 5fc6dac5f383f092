"""What parse_event accepts, PostgreSQL accepts, and gives back exactly."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.checkout import ROOT

from dsql_outbox.outbox import Database, InvalidEvent
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.event.event_parser import ParsedEvent, parse_event

pytestmark = pytest.mark.client

SAMPLES = sorted((ROOT / "tests" / "data" / "events").iterdir())
# One connection serves all examples, and a busy machine is no fault.
SETTINGS = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)

texts = st.text(st.characters(), max_size=20)  # lone surrogates and controls too
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
offsets = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
dates = (
    st.datetimes(timezones=offsets).map(datetime.isoformat)
    | st.datetimes().map(datetime.isoformat)
    | st.integers(-62_135_596_800_000, 253_402_300_799_999)
    | st.from_regex(r"\A20[0-9]{2}-0[1-9]-[12][0-9]T1[0-9]:00[+-][0-2][0-9]:[0-5][0-9]\Z")
)


@st.composite
def events(draw: st.DrawFn) -> str:
    """An event that often is valid, with all sorts of content where content is free."""
    ids = st.text(st.characters(), min_size=1, max_size=130)
    entities = [
        {"entityHeader": {"entityId": draw(ids), "entityType": draw(ids)[:65]}}
        | draw(st.dictionaries(texts, values, max_size=4))
        for _ in range(draw(st.integers(1, 2)))
    ]
    header = {
        "uuid": str(draw(st.uuids())),
        "eventName": draw(st.text(st.characters(), min_size=1, max_size=260)),
        "createdDate": draw(dates),
        "note": draw(values),
    }
    document = {"eventHeader": header, "entities": entities}
    indent = draw(st.sampled_from([None, 1]))
    return json.dumps(document, ensure_ascii=draw(st.booleans()), indent=indent)


@pytest.fixture
def connection(database_url: str) -> Any:
    with Database(database_url).connect() as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        yield connection


def accepted(source: str | bytes) -> ParsedEvent | None:
    try:
        return parse_event(source)
    except InvalidEvent:
        return None


def stored(connection: Connection, query: Any, values: list[Any]) -> list[Any]:
    """The values as the database gives them back, each from a column of `query`'s type."""
    columns = psycopg.sql.SQL(", ").join([psycopg.sql.SQL(query)] * len(values))
    row = connection.execute(psycopg.sql.SQL("SELECT {}").format(columns), values).fetchone()
    assert row is not None
    return list(row)


def check(connection: Connection, event: ParsedEvent) -> None:
    documents = [event.data]
    documents += [text for t in event.touches for text in (t.attributes, t.header)]
    assert stored(connection, "%s::text::json::text", documents) == documents
    names = [event.name, event.type]
    assert stored(connection, "%s::text::varchar(255)", names) == names
    types = [t.entity_type for t in event.touches]
    assert stored(connection, "%s::text::varchar(64)", types) == types
    ids = [t.entity_id for t in event.touches]
    assert stored(connection, "%s::text::varchar(128)", ids) == ids
    if event.created_date is not None:
        text = str(event.created_date)  # as array literals have it
        sent = [event.created_date]
        assert stored(connection, "%s::timestamptz", sent) == sent
        assert stored(connection, "%s::text::timestamptz", [text]) == sent


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_comes_back_exactly(connection: Connection, path: Path) -> None:
    check(connection, parse_event(path.read_text()))


@SETTINGS
@given(events())
def test_whatever_is_accepted_comes_back_exactly(connection: Connection, text: str) -> None:
    if event := accepted(text):
        check(connection, event)


@SETTINGS
@given(st.sampled_from(SAMPLES), st.data())
def test_a_damaged_event_that_is_accepted_comes_back_exactly(
    connection: Connection, path: Path, data: st.DataObject
) -> None:
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    more = data.draw(st.sampled_from([b"", b"\\u0000", b"\\ud83d", b"1e999", b"\x7f", b" "]))
    drop = data.draw(st.integers(0, 2))
    if event := accepted(whole[:at] + more + whole[at + drop :]):
        check(connection, event)


ATTRIBUTES = {
    "escaped NUL": r'"\u0000"',
    "surrogate pair": r'"\ud83d\ude97"',
    "number of 200,000 digits in jsonb": "1e200000",
    "number of 5,000 digits": "7" * 5_000,
    "minus zero": "-0.00",
    "duplicate keys": '{"a": 1, "a": 2}',
    "delete character": '"\x7f"',
    "no character": '"\uffff"',
    "escaped slash": r'"\/"',
    "800 arrays": "[" * 800 + "]" * 800,
    "400 objects": '{"a":' * 400 + "1" + "}" * 400,
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_what_jsonb_would_change_or_refuse_comes_back_exactly(
    connection: Connection, name: str
) -> None:
    text = SAMPLES[0].read_text().replace('"Moss Green"', ATTRIBUTES[name])
    event = parse_event(text)
    assert ATTRIBUTES[name] in event.touches[0].attributes
    check(connection, event)


def test_the_deepest_event_that_is_accepted_is_accepted_by_postgresql(
    connection: Connection,
) -> None:
    def nested(depth: int) -> str:
        return SAMPLES[0].read_text().replace("2024", "[" * depth + "]" * depth)

    low, high = 1, 20_000
    assert accepted(nested(high)) is None
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if accepted(nested(middle)) else (low, middle)
    event = accepted(nested(low - 20))  # the interpreter's limit counts our own frames too
    assert event is not None
    check(connection, event)
