"""The comparison with peers: lines, rows of the floor, and tables. Nothing runs."""

import asyncio
import json
from collections import Counter

import pytest
from benchmarks.peers.children.loop import BATCH, in_batches
from benchmarks.peers.children.relayed import PER_KEY, CountingSink, key_of, ordered_events
from benchmarks.peers.contestants import (
    ASYNCPG,
    CONTESTANTS,
    LINES,
    ComparedLine,
    Contestant,
    UnknownLines,
    select_lines,
)
from benchmarks.peers.four_inserts import (
    COLUMNS,
    batch_statement,
    columns,
    numbered,
    rows,
    single_statement,
)
from benchmarks.peers.four_inserts_as_text import batch_parameters
from benchmarks.peers.peer_process import Measured
from benchmarks.peers.peer_table import descriptions
from benchmarks.peers.peer_table import rows as table_rows
from benchmarks.sample_event import EVENT_BYTES, SUBJECTS, sample_events

BATCHES = ComparedLine("batch", "batches", "floor", 100)


def test_lines_are_selected_by_name_and_all_without_a_selection() -> None:
    assert [line.name for line in select_lines("single,batch")] == ["single", "batch"]
    assert select_lines("") == list(LINES)


def test_an_unknown_line_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UnknownLines, match="no line 'drain': there are batch, single"):
        select_lines("batch,drain")


def test_every_floor_is_a_contestant_and_no_name_occurs_twice() -> None:
    names = Counter(each.name for each in CONTESTANTS)
    assert set(names.values()) == {1}
    assert {line.floor for line in LINES} <= set(names)


def test_sample_events_have_the_size_of_real_ones_and_differ_in_subject() -> None:
    events = sample_events(SUBJECTS - 2, 4)
    assert {len(event) for event in events} == {EVENT_BYTES}
    (keys,) = {json.loads(event)["entities"][0]["entityHeader"]["entityType"] for event in events}
    assert keys == "Car"
    found = [json.loads(event)["entities"][0]["entityHeader"]["entityId"] for event in events]
    assert found == ["CAR-19998", "CAR-19999", "CAR-0", "CAR-1"]


def test_an_entity_has_the_next_version_each_time_it_occurs() -> None:
    version = list(COLUMNS).index("version")
    found = rows([*sample_events(7, 1), *sample_events(7 + SUBJECTS, 1)])
    assert [row[version] for row in found] == [1, 2]


def test_columns_are_rows_turned_and_become_array_literals() -> None:
    events = sample_events(0, 3)
    found = columns(events)
    assert len(found) == len(COLUMNS)
    assert {len(column) for column in found} == {3}
    parameters = batch_parameters(events)
    assert parameters["entity_id"] == '{"CAR-0","CAR-1","CAR-2"}'
    assert parameters["fingerprint"].startswith('{"\\\\x')


@pytest.mark.parametrize("statement", [single_statement(), batch_statement()])
def test_the_same_statement_has_numbers_for_asyncpg(statement: str) -> None:
    text = numbered(statement)
    assert "%(" not in text
    assert "::text::" not in text.partition(")")[0]
    assert f"${len(COLUMNS)}::json" in text
    assert f"${len(COLUMNS) + 1}" not in text


def test_events_are_cut_into_batches() -> None:
    cut = in_batches(sample_events(0, 2 * BATCH + 1))
    assert [len(each) for each in cut] == [BATCH, BATCH, 1]


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() -> None:
    measured = {
        "floor": [Measured(100.0), Measured(200.0), Measured(400.0)],
        "slow": [Measured(50.0, 9.0), Measured(20.0, 7.0), Measured(100.0, 8.0)],
    }
    floor, slow = table_rows(BATCHES, measured)
    assert (floor.ratio, slow.ratio) == (1.0, 0.25)
    assert (floor.median("cpu"), slow.median("cpu")) == (None, 8.0)
    assert "0.25" in str(slow)
    assert json.loads(json.dumps(slow.as_json()))["median"] == 50.0


def test_without_its_floor_a_line_has_rates_and_no_ratio() -> None:
    (row,) = table_rows(BATCHES, {"slow": [Measured(50.0)]})
    assert row.ratio is None
    assert str(row).split()[-5:] == ["-"] * 5


def test_a_line_that_waits_shows_times_and_no_ratio() -> None:
    waits = ComparedLine("latency", "latency", "own", 200, relays=True, waits=True)
    (row,) = table_rows(waits, {"own": [Measured(100.0, p50=1.0, p99=9.0)]})
    assert row.ratio is None
    assert row.as_json()["p99s"] == [9.0]


def test_a_slow_relay_gets_fewer_events_but_not_where_time_counts() -> None:
    slow = Contestant("slow", "", 1, "", "", "", share=0.05)
    relay = ComparedLine("relay", "relay", "own", 20_000, relays=True)
    assert relay.events_of(slow, 0.5) == 500
    assert relay._replace(waits=True).events_of(slow, 0.5) == 20_000
    assert relay._replace(relays=False).events_of(slow, 0.5) == 10_000


def test_the_sink_counts_messages_that_come_after_a_newer_one_of_their_key() -> None:
    first, second, other = ordered_events(PER_KEY - 2, 3)

    async def disordered(*payloads: bytes) -> int:
        sink = CountingSink(len(payloads))
        for payload in payloads:
            sink.take(payload)
        await sink.all()
        return sink.disordered

    assert asyncio.run(disordered(second, other, first)) == 1
    assert asyncio.run(disordered(first, other, second)) == 0
    assert key_of(second) == key_of(first) != key_of(other)


def test_the_table_says_what_each_does_and_what_is_missing() -> None:
    text = list(descriptions(CONTESTANTS, {ASYNCPG: "No module named 'asyncpg'"}))
    assert len(text) == 1 + len(CONTESTANTS) + 1
    assert text[-1] == "  not measured: bare asyncpg: No module named 'asyncpg'"
