"""From a valid event to the parameters of its statement."""

import ast
import json
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.outbox import Entity, Event
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.writer.statement.parameters import (
    Parameters,
    PreparedEvent,
    batch_parameters,
    one_parameters,
    prepare,
    shard_of,
)

KEYS = [("Car", "C-1"), ("Car", "C-2"), ("Loan", "C-1")]

an_event = st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)
a_batch = st.lists(an_event, min_size=1, max_size=8)


def prepared(keys: list[tuple[str, str]], number: int = 1) -> PreparedEvent:
    entities = [Entity(kind, name, {"from": number}) for kind, name in keys]
    event = Event.new("CarSold", entities, id=UUID(int=number))
    return prepare(parse_event(event), UUID(int=99).hex, "events.CarSold", "/test", {})


def batch_of(batch: list[list[tuple[str, str]]]) -> list[PreparedEvent]:
    return [prepared(keys, number) for number, keys in enumerate(batch, start=1)]


def column(parameters: Parameters, name: str) -> list[str]:
    """An array literal, read back; Python's strings happen to have the same escapes."""
    text = parameters[name][1:-1]
    if '"' in text:
        return list(ast.literal_eval(f"[{text}]"))
    return text.split(",") if text else []


def in_order(parameters: Parameters, name: str) -> list[str]:
    """A column of all touches, those of subjects and the further ones, by ordinal."""
    found: dict[int, str] = {}
    for kind in ("subject", "further"):
        ordinals = map(int, column(parameters, f"{kind}_ordinal"))
        found.update(zip(ordinals, column(parameters, f"{kind}_{name}"), strict=True))
    assert sorted(found) == list(range(len(found)))
    return [found[n] for n in range(len(found))]


@pytest.mark.parametrize(
    ("entity", "shard"), [(("Car", "C-1"), 14), (("Loan", "LOAN-7"), 15), (("Käse", "⬡"), 2)]
)
def test_the_shard_of_an_entity_never_changes(entity: tuple[str, str], shard: int) -> None:
    """It is stored: another answer in another version would scatter an entity's rows."""
    assert shard_of(*entity, 16) == shard


@given(st.text(), st.text(), st.integers(1, 3000))
def test_a_shard_is_one_of_those_there_are(kind: str, name: str, shards: int) -> None:
    assert 0 <= shard_of(kind, name, shards) < shards


def test_the_headers_are_json_once_the_statement_has_completed_them() -> None:
    one = one_parameters(prepared([("Car", 'C/"1"')]), 16)
    headers = json.loads(one["headers"] + one["key"] + "@" + "7" + '"}')
    assert headers == {
        "specversion": "1.0",
        "id": str(UUID(int=1)),
        "source": "/test",
        "type": "CarSold",
        "datacontenttype": "application/json",
        "entities": "Car/C%2F%221%22@7",
    }


def test_a_touch_is_json_once_the_statement_has_completed_it() -> None:
    one = one_parameters(prepared([("Car", 'C/"1"\\')]), 16)
    touch = {"entityType": "Car", "entityId": 'C/"1"\\', "version": 7}
    assert json.loads(one["touch"] + "7" + "}") == touch


def test_the_trace_context_travels_in_the_headers() -> None:
    event = parse_event(Event.new("CarSold", [Entity("Car", "C-1")]))
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    one = one_parameters(prepare(event, UUID(int=99).hex, "topic", "/test", carrier), 16)
    assert json.loads(one["headers"] + '"}')["traceparent"] == carrier["traceparent"]


def test_own_headers_are_in_the_message_and_in_a_column_of_their_own() -> None:
    own = {"tenant": "acme"}
    event = parse_event(Event.new("CarSold", [Entity("Car", "C-1")], headers=own))
    written = prepare(event, UUID(int=99).hex, "topic", "/test", {"tenant": "of a hook", "x": "y"})
    one = one_parameters(written, 16)
    headers = json.loads((one["headers"] or "") + '"}')
    assert (headers["tenant"], headers["x"]) == ("acme", "y")
    assert json.loads(one["own_headers"] or "") == own


def test_events_without_own_headers_send_two_bytes_per_batch() -> None:
    plain = prepared([("Car", "C-1")])
    assert one_parameters(plain, 16)["own_headers"] is None
    assert batch_parameters([plain] * 500, 16)["own_headers"] == "{}"


@given(a_batch)
def test_an_entity_of_a_batch_is_upserted_once_with_the_state_of_its_last_event(
    batch: list[list[tuple[str, str]]],
) -> None:
    parameters = batch_parameters(batch_of(batch), 16)
    keys = list(
        zip(column(parameters, "entity_type"), column(parameters, "entity_id"), strict=True)
    )
    assert keys == sorted({key for event in batch for key in event})
    touches = Counter(key for event in batch for key in event)
    assert column(parameters, "touches") == [str(touches[key]) for key in keys]
    subjects = Counter(event[0] for event in batch)
    assert column(parameters, "subjects") == [str(subjects[key]) for key in keys]
    for key, data, event in zip(
        keys,
        column(parameters, "attributes"),
        column(parameters, "entity_event"),
        strict=True,
    ):
        last = max(n for n, touched in enumerate(batch, start=1) if key in touched)
        assert json.loads(data)["from"] == last
        assert event == str(UUID(int=last))


@given(a_batch)
def test_the_touches_of_an_entity_are_numbered_back_from_its_last(
    batch: list[list[tuple[str, str]]],
) -> None:
    parameters = batch_parameters(batch_of(batch), 16)
    touches = [(key, n == 0) for event in batch for n, key in enumerate(event)]
    back = in_order(parameters, "back")
    for key in {key for key, _ in touches}:
        mine = [n for n, (other, _) in enumerate(touches) if other == key]
        assert [back[n] for n in mine] == [str(n) for n in range(len(mine))][::-1]


@given(a_batch)
def test_the_positions_of_a_subject_are_numbered_back_from_its_last(
    batch: list[list[tuple[str, str]]],
) -> None:
    parameters = batch_parameters(batch_of(batch), 16)
    position_back = column(parameters, "position_back")
    first = [n for n, value in enumerate(column(parameters, "first_as_subject")) if value == "t"]
    for key in {event[0] for event in batch}:
        mine = [n for n, event in enumerate(batch) if event[0] == key]
        assert [position_back[n] for n in mine] == [str(n) for n in range(len(mine))][::-1]
        assert [n for n in mine if n in first] == mine[:1]


@given(a_batch)
def test_a_touch_is_sent_once_and_names_its_event(batch: list[list[tuple[str, str]]]) -> None:
    parameters = batch_parameters(batch_of(batch), 16)
    pairs = zip(in_order(parameters, "type"), in_order(parameters, "id"), strict=True)
    assert list(pairs) == [key for event in batch for key in event]
    subjects = column(parameters, "subject_ordinal")
    events = [str(n) for n, event in zip(subjects, batch, strict=True) for _ in event[1:]]
    assert column(parameters, "further_event") == events


def test_the_counts_to_expect_are_those_of_the_batch() -> None:
    parameters = batch_parameters(batch_of([KEYS, KEYS[:1]]), 16)
    assert (parameters["expected_events"], parameters["expected_touches"]) == ("2", "4")
