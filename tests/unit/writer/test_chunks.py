"""How a batch is cut to what one transaction takes."""

from collections.abc import Sequence
from itertools import pairwise
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.writer import workload_s
from tests.support.writer.database_model import pend

from dsql_outbox.outbox import Entity, Event, EventTooLarge
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.outbox.settings import MAX_MESSAGE_BYTES, MAX_TRANSACTION_BYTES
from dsql_outbox.writer.attempt.pending import Pending
from dsql_outbox.writer.statement import chunks as chunks_module
from dsql_outbox.writer.statement.chunks import (
    ONE_TARGET,
    Size,
    TargetCounts,
    bound_of,
    chunks,
    refuse_unsendable,
    size_of,
)
from dsql_outbox.writer.statement.parameters import PreparedEvent, batch_parameters, prepare

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NAME = TEXT.map(lambda text: f"{text}x")


def sizes_of(batch: Sequence[Pending]) -> list[int]:
    return [len(chunk) for chunk in chunks(batch, lambda: ONE_TARGET)]


def total(chunk: Sequence[Pending]) -> Size:
    found = Size()
    for pending in chunk:
        found = found.plus(size_of(pending.prepared))
    return found


def most(chunk: Sequence[Pending]) -> Size:
    found = Size()
    for pending in chunk:
        found = found.plus(bound_of(pending.prepared))
    return found


def prepared(event: Event) -> PreparedEvent:
    return prepare(
        parse_event(event), uuid4().hex, "events.CarSold", "/test", {"traceparent": "00-1"}
    )


def test_nothing_is_cut_into_nothing() -> None:
    assert sizes_of([]) == []


def test_a_transaction_takes_3000_rows() -> None:
    """750 events with one entity: two rows each, and two for the entity."""
    assert sizes_of([pend() for _ in range(1_501)]) == [750, 750, 1]


def test_an_event_that_is_too_big_by_itself_goes_alone() -> None:
    huge = pend(*[f"C-{n}" for n in range(1_499)])
    assert size_of(huge.prepared).rows == 3_000
    assert sizes_of([pend(), huge, pend()]) == [1, 1, 1]


@settings(max_examples=100, deadline=None)
@given(
    entities=st.lists(st.integers(1, 4), max_size=30),
    limits=st.tuples(st.integers(4, 40), st.integers(1, 30_000), st.integers(1, 30_000)),
)
def test_every_part_fits_and_could_not_take_the_next_event(
    entities: list[int], limits: tuple[int, int, int]
) -> None:
    batch = [pend(*[f"C-{n}" for n in range(count)]) for count in entities]
    with pytest.MonkeyPatch.context() as patch:
        names = ["MAX_TRANSACTION_ROWS", "MAX_TRANSACTION_BYTES", "MAX_MESSAGE_BYTES"]
        for name, limit in zip(names, limits, strict=True):
            patch.setattr(chunks_module, name, limit)
        parts = list(chunks(batch, lambda: ONE_TARGET))
        assert [pending for part in parts for pending in part] == batch
        assert all(total(part).fits or len(part) == 1 for part in parts)
        for part, following in pairwise(parts):
            assert not most([*part, following[0]]).fits


@settings(max_examples=200, deadline=None)
@given(
    events=st.lists(
        st.tuples(NAME, st.lists(st.tuples(NAME, TEXT), min_size=1, max_size=3, unique=True)),
        min_size=1,
        max_size=4,
    )
)
def test_the_statement_is_never_larger_than_was_counted(
    events: list[tuple[str, list[tuple[str, str]]]],
) -> None:
    batch = [
        prepared(
            Event.new(name, [Entity(f"{n}{text}", text, {text: name}) for n, (text, _) in touched])
        )
        for name, pairs in events
        for touched in [list(enumerate(pairs))]
    ]
    parameters = batch_parameters(batch, 16)
    sent = sum(len(str(value).encode()) for value in parameters.values())
    assert sent <= sum(size_of(event).encoded for event in batch)


def test_a_large_text_is_counted_as_often_as_it_is_sent() -> None:
    """Of quotes: each of them is two bytes in JSON, and four in an array of JSON."""
    event = prepared(Event.new("CarSold", [Entity("Car", "C-1", {"a": '"' * 100_000})]))
    sent = sum(len(str(value).encode()) for value in batch_parameters([event], 16).values())
    assert 800_000 < sent <= size_of(event).encoded < sent + 2_000
    assert sent < MAX_MESSAGE_BYTES


def test_an_event_that_no_message_takes_is_refused_with_size_and_limit() -> None:
    """Its copies fit a transaction, but not all their quotes a message."""
    event = parse_event(workload_s.many_entities('"' * 1_900))
    assert event.stored_bytes < MAX_TRANSACTION_BYTES
    with pytest.raises(EventTooLarge, match="event as it is sent of") as raised:
        refuse_unsendable(event, "events.Sold", "/test")
    assert raised.value.limit == MAX_MESSAGE_BYTES < raised.value.size


@pytest.mark.parametrize("filler", ["x" * 1_900, '"' * 1_000])
def test_an_event_that_a_message_takes_is_not_refused(filler: str) -> None:
    refuse_unsendable(parse_event(workload_s.many_entities(filler)), "events.Sold", "/test")


@settings(max_examples=300, deadline=None)
@given(
    filler=st.text(st.sampled_from('"\\\1x⬡'), max_size=2_000),
    key=st.text(st.sampled_from('"\\\1x⬡'), min_size=1, max_size=60),
    entities=st.integers(1, 300),
)
def test_what_is_stored_in_little_is_sent_in_less_than_16_times_that(
    filler: str, key: str, entities: int
) -> None:
    """Up to a sixteenth of a message nobody needs to count what an event takes on the wire."""
    touched = [Entity(key, f"{n}{key}", {"a": filler}) for n in range(entities)]
    found = prepared(Event.new("CarSold", touched))
    assert size_of(found).encoded < 16 * found.event.stored_bytes


@settings(max_examples=300, deadline=None)
@given(
    name=NAME,
    filler=st.text(st.sampled_from('"\\\1x⬡𝄞'), max_size=500),
    key=st.text(st.sampled_from('"\\\1x⬡𝄞'), min_size=1, max_size=60),
    entities=st.integers(1, 30),
    carrier=st.dictionaries(st.sampled_from(["traceparent", "baggage"]), TEXT),
    own=st.dictionaries(
        st.sampled_from(["tenant", "region"]), st.text(st.sampled_from('"\\x⬡𝄞'), min_size=1)
    ),
    targets=st.integers(0, 4).flatmap(
        lambda number: st.builds(TargetCounts, st.just(number), st.integers(0, number))
    ),
)
@example("x", '"' * 5_000, "x", 1, {}, {}, ONE_TARGET)
@example("x", "", "𝄞" * 60, 30, {}, {}, ONE_TARGET)
def test_an_event_is_never_larger_than_its_bound(
    name: str,
    filler: str,
    key: str,
    entities: int,
    carrier: dict[str, str],
    own: dict[str, str],
    targets: TargetCounts,
) -> None:
    touched = [Entity(key, f"{n}{key}", {filler: key}) for n in range(entities)]
    event = parse_event(Event.new(name, touched, name=name, headers=own))
    found = prepare(event, uuid4().hex, name, f"/{key}", carrier)
    size, bound = size_of(found, targets), bound_of(found, targets)
    assert size.rows == bound.rows
    assert size.stored <= bound.stored
    assert size.encoded <= bound.encoded


def test_a_part_of_small_events_takes_all_rows_that_a_transaction_may() -> None:
    """Their bound is no reason to cut it."""
    text = '"name":"value",' * 30
    batch = [pend(name=text[:250]) for _ in range(750)]
    assert all(len(pending.prepared.event.data) > 400 for pending in batch)
    assert sizes_of(batch) == [750]


@pytest.mark.parametrize("character", ["a", "\1", "\n", '"', "\\", "/", "é", "⬡"])
def test_all_copies_of_a_key_are_counted(character: str) -> None:
    """The entity's own row, its touch, the message's header, and JSON inside an array."""

    def copies(length: int) -> int:
        event = Event.new("CarSold", [Entity(character * length, "C-1")])
        parameters = batch_parameters([prepared(event)], 16)
        names = ("entity_type", "subject_type", "subject_key", "subject_touch")
        return sum(len(str(parameters[name]).encode()) for name in names)

    assert copies(61) - copies(1) <= chunks_module._in_copies(character * 60)
