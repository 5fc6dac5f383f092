"""The plans of the statements for batches: their work grows with the batch, and no faster."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from dsql_outbox.outbox import Entity, Event
from dsql_outbox.outbox.database.exchange import numbered
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer.statement.parameters import PreparedEvent, batch_parameters, prepare

pytestmark = pytest.mark.postgres_only("DSQL has a planner of its own")

BATCH = numbered("batch", statement("event_write_batch", "outbox"))
PLAIN = [
    numbered(name, statement(f"plain_{name}", "outbox"))
    for name in ("entities", "events", "headers", "outbox", "receipt")
]
ROWS_PER_TOUCH = 40
"""An upper bound for the nodes of a plan that one touch passes through."""

Connection = psycopg.Connection[tuple[Any, ...]]
Plan = dict[str, Any]


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
def connection(request: pytest.FixtureRequest, url: str) -> Iterator[Connection]:
    options = f"-c plan_cache_mode={request.param}"
    with psycopg.connect(url, options=options, prepare_threshold=None) as connection:
        yield connection


def batch_of(
    events: int, entities: int, *, touches: int = 1, text: str = ""
) -> list[PreparedEvent]:
    """Events that touch `touches` entities each, of `entities` in all."""
    names = [f"C-{n}" for n in range(entities)] * (touches + events * touches // entities)
    found = []
    for n in range(events):
        touched = [Entity("Car", name, {"text": text}) for name in names[n * touches :][:touches]]
        event = parse_event(Event.new("CarSold", touched))
        found.append(prepare(event, uuid4().hex, "events.CarSold", "/test", {}))
    return found


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def explained(connection: Connection, query: Any, batch: list[PreparedEvent]) -> list[Plan]:
    """Run the statement for the batch; return the nodes of its plan that were executed."""
    parameters = batch_parameters(batch, 16)
    values = [sql.Literal(parameters[name]) for name in query.parameters]
    connection.execute("DEALLOCATE ALL")
    connection.execute(b"PREPARE explained AS " + query.text)
    text = sql.SQL("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) EXECUTE explained ({})")
    row = connection.execute(text.format(sql.SQL(", ").join(values))).fetchone()
    assert row is not None
    return [node for node in nodes(row[0][0]["Plan"]) if node["Actual Loops"]]


def visited(node: Plan) -> int:
    """The rows that a node returned or removed."""
    removed = [rows for name, rows in node.items() if name.startswith("Rows Removed by")]
    return int(node["Actual Loops"] * (node["Actual Rows"] + sum(removed)))


def assert_linear(plan: list[Plan], touches: int) -> None:
    assert sum(map(visited, plan)) <= ROWS_PER_TOUCH * touches
    for node in plan:
        if node["Node Type"] == "Nested Loop":
            inner = node["Plans"][1]
            assert inner["Actual Loops"] == 1 or visited(inner) <= touches


SIZES = [10, 11, 100, pytest.param(1_499, marks=pytest.mark.slow)]
SHAPES = {
    "an entity per event": lambda size: batch_of(size, size),
    "few entities": lambda size: batch_of(size, 3),
    "three entities per event": lambda size: batch_of(size, 3 * size, touches=3),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_batch_visits_rows_in_proportion_to_its_touches(
    connection: Connection, shape: str, size: int
) -> None:
    batch = SHAPES[shape](size)
    touches = sum(len(prepared.event.touches) for prepared in batch)
    assert_linear(explained(connection, BATCH, batch), touches)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_plain_form_visits_rows_in_proportion_to_its_touches(
    connection: Connection, shape: str, size: int
) -> None:
    batch = SHAPES[shape](size)
    touches = sum(len(prepared.event.touches) for prepared in batch)
    for query in PLAIN:
        assert_linear(explained(connection, query, batch), touches)


def test_events_with_one_touch_are_not_aggregated(connection: Connection) -> None:
    several = batch_of(2, 4, touches=2)
    plan = explained(connection, BATCH, [*batch_of(500, 500), *several])
    (grouped,) = [node for node in plan if "Group Key" in node]
    assert visited(grouped["Plans"][0]) == len(several)


def test_no_join_hashes_the_texts_of_events(connection: Connection) -> None:
    """They would be copied once more, and to disk if they exceed the memory of a query."""
    plan = explained(connection, BATCH, batch_of(500, 500, text="x" * 2_000))
    hashes = [node["Peak Memory Usage"] for node in plan if node["Node Type"] == "Hash"]
    assert 0 < max(hashes) < 500  # KiB
