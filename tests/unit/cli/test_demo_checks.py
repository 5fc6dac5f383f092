"""The demo's invariants: each goes red when it should."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from dsql_outbox.cli.demo.results import Arrived, Results, Written, checks, percentile
from dsql_outbox.cli.demo.sample_events import EVENT_TYPES, SHAPES, Shape, make_event
from dsql_outbox.cli.demo.stages import TURNS
from dsql_outbox.outbox import Receipt, Touched


def written(shape: Shape, kind: int, turn: int) -> Written:
    event = make_event(EVENT_TYPES[kind], shape, f"{shape}-{turn}", turn)
    version = kind + 1 if shape == "hot" else 1
    touched = tuple(Touched(e.type, e.id, version) for e in event.entities)
    receipt = Receipt(event.id, "committed", 2, 1, 1, touched)
    return Written(shape, event, receipt, 0.1)


@pytest.fixture
def results() -> Results:
    writes = [written(s, k, t) for s in SHAPES for t in range(TURNS) for k in range(4)]
    arrived = [
        Arrived(w.event.id, f"{w.event.entities[0].id}", w.receipt.entities[0].version,
                w.event.to_json(), 0.1)
        for w in writes
        if w.receipt
    ]  # fmt: skip
    return Results(writes, arrived)


def broken(results: Results, stored: list[UUID] | None = None, rows_left: int = 0) -> list[int]:
    ids = [w.event.id for w in results.written] if stored is None else stored
    return [n for n, check in enumerate(checks(results, ids, rows_left)) if not check.held]


def test_all_hold_for_a_run_without_fault(results: Results) -> None:
    assert len(results.written) == 40
    assert broken(results) == []


def test_an_event_that_is_not_stored_is_seen(results: Results) -> None:
    assert broken(results, [w.event.id for w in results.written[1:]]) == [0]


def test_a_row_that_stays_in_the_outbox_is_seen(results: Results) -> None:
    assert broken(results, rows_left=1) == [5]


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (lambda r: r.arrived.pop(), 1),
        (lambda r: r.arrived.append(r.arrived[-1]), 1),
        (lambda r: r.arrived.append(replace(r.arrived[0], event_id=uuid4(), key="other")), 1),
        (lambda r: r.arrived.__setitem__(0, replace(r.arrived[0], payload=b"{}")), 4),
        (lambda r: r.arrived.sort(key=lambda a: -a.sequence), 3),
    ],
    ids=["lost", "twice", "foreign", "altered", "disorder"],
)
def test_what_arrives_wrong_is_seen(
    results: Results, damage: Callable[[Results], None], check: int
) -> None:
    damage(results)
    assert check in broken(results)


def test_a_hot_run_without_conflict_is_void(results: Results) -> None:
    results.written[:] = [
        replace(w, receipt=Receipt(w.event.id, "committed", 1, 0, 1, w.receipt.entities))
        for w in results.written
        if w.receipt
    ]
    assert broken(results) == [2]


def test_the_workload_has_five_events_of_each_type_and_five_shared_cars() -> None:
    hot = [make_event(kind, "hot", f"r-{t}", t) for kind in EVENT_TYPES for t in range(TURNS)]
    assert len(hot) == 20
    assert {e.entities[0].id for e in hot} == {f"CAR-r-{n}" for n in range(5)}
    distinct = [make_event(k, "distinct", f"r-{t}", t) for k in EVENT_TYPES for t in range(TURNS)]
    assert len({e.entities[0].id for e in distinct}) == 20


def test_percentile_is_the_nearest_rank() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.95) == 1.0
    assert percentile([], 0.5) == 0.0
