"""Which events of one `write_many` go together, and where their outcomes belong: on a model."""

from asyncio import CancelledError
from collections.abc import Sequence
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.writer.database_model import FAULTY, SETTINGS, Run, Server, write_steps

from dsql_outbox.observability.facts import Fact, WriteEnded, WriteStarted
from dsql_outbox.outbox import Database, DuplicateEvent, Entity, Event, InvalidEvent, Receipt
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.unit_of_work.gate import Gate
from dsql_outbox.writer.attempt.pending import OnDuplicate, WriteOutcome
from dsql_outbox.writer.core import Core
from dsql_outbox.writer.program.write_many import Many
from dsql_outbox.writer.statement import chunks

IDS = [UUID(int=n) for n in range(1, 5)]


def many(
    events: Sequence[EventSource],
    versions: Sequence[int | None] | None = None,
    *,
    facts: list[Fact] | None = None,
    on_duplicate: OnDuplicate = "error",
) -> Many:
    hooks = [] if facts is None else [facts.append]
    core = Core(Database("host=nowhere"), SETTINGS, hooks)
    return Many(core, Gate(None), on_duplicate, events, versions or [None] * len(events))


def sold(car: str = "C-1", event_id: UUID | None = None, name: str = "Car Sold") -> Event:
    return Event.new("CarSold", [Entity("Car", car)], name=name, id=event_id)


def write(call: Many, server: Server, *misfortunes: str) -> list[list[UUID]]:
    """Write batch after batch, as the writers do; the ids that went together."""
    done = Run(server, list(misfortunes))
    together: list[list[UUID]] = []
    for batch in call.batches():
        call.look_ahead()
        together.append([pending.id for pending in batch])
        done(write_steps(batch, done.clock))
    return together


def kinds(outcomes: Sequence[WriteOutcome]) -> list[type]:
    return [type(outcome) for outcome in outcomes]


def test_events_with_ids_of_their_own_go_together() -> None:
    call = many([sold(event_id=i) for i in IDS])
    assert write(call, Server()) == [IDS]
    assert [o.entities[0].version for o in call.outcomes if isinstance(o, Receipt)] == [1, 2, 3, 4]


def test_an_id_that_is_there_again_begins_another_transaction() -> None:
    one, two, three, _ = IDS
    call = many([sold(event_id=i) for i in (one, two, one, three, two, two)])
    server = Server()
    assert write(call, server) == [[one, two], [one, three, two], [two]]
    assert kinds(call.outcomes) == [
        Receipt,
        Receipt,
        *[DuplicateEvent, Receipt],
        *[DuplicateEvent] * 2,
    ]
    assert server.versions[("Car", "C-1")] == 3


def test_the_second_of_an_id_is_stored_at_its_own_place_if_the_first_is_not() -> None:
    """What comes after it comes after it in its subject's order too."""
    one, two, three, _ = IDS
    call = many(
        [
            sold(event_id=one, name=FAULTY),
            sold(event_id=two),
            sold(event_id=one),
            sold(event_id=three),
        ]
    )
    write(call, Server())
    failed, *stored = call.outcomes
    assert isinstance(failed, Exception)
    assert [(o.event_id, o.entities[0].version) for o in stored if isinstance(o, Receipt)] == [
        (two, 1),
        (one, 2),
        (three, 3),
    ]


def test_the_second_of_an_id_may_say_something_else() -> None:
    call = many([sold(event_id=IDS[0]), sold("C-2", event_id=IDS[0])])
    write(call, Server())
    first, second = call.outcomes
    assert isinstance(first, Receipt)
    assert isinstance(second, DuplicateEvent)
    assert not second.same_content


def test_refused_events_have_their_outcome_at_their_place_and_are_never_sent() -> None:
    call = many([sold(event_id=IDS[0]), "{}", sold(event_id=IDS[1]), b"\xff"])
    assert write(call, Server()) == [IDS[:2]]
    assert kinds(call.outcomes) == [Receipt, InvalidEvent, Receipt, InvalidEvent]


def test_versions_go_with_their_events() -> None:
    call = many([sold(), sold(), sold()], [0, None, 2])
    assert [p.prepared.expected_version for batch in call.batches() for p in batch] == [0, None, 2]


def write_first_batch(call: Many) -> None:
    done = Run(Server())
    with call:
        done(write_steps(next(call.batches()), done.clock))
        raise CancelledError


def test_when_the_call_is_cut_short_what_was_not_sent_ends_as_failed() -> None:
    facts: list[Fact] = []
    with pytest.raises(CancelledError):
        write_first_batch(
            many(
                [sold(event_id=IDS[0]), "{}", sold(event_id=IDS[1]), sold(event_id=IDS[0])],
                facts=facts,
            )
        )
    ended = [(f.event_id, f.status) for f in facts if isinstance(f, WriteEnded)]
    assert ended == [(IDS[0], "committed"), (IDS[1], "committed"), (IDS[0], "failed")]
    assert sum(isinstance(fact, WriteStarted) for fact in facts) == 3


@settings(max_examples=100, deadline=None)
@given(
    events=st.lists(
        st.tuples(st.sampled_from(IDS), st.sampled_from(["Car Sold", "Car Sold", FAULTY]))
        | st.none(),
        max_size=12,
    ),
    misfortunes=st.lists(
        st.sampled_from(["none", "conflict", "lost before", "lost after"]), max_size=6
    ),
    rows=st.integers(4, 20),
    on_duplicate=st.sampled_from(["error", "return"]),
)
def test_every_event_has_its_outcome_in_the_order_of_the_call(
    events: list[tuple[UUID, str] | None],
    misfortunes: list[str],
    rows: int,
    on_duplicate: OnDuplicate,
) -> None:
    sources = ["{}" if e is None else sold(event_id=e[0], name=e[1]) for e in events]
    call, server = many(sources, on_duplicate=on_duplicate), Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "MAX_TRANSACTION_ROWS", rows)
        together = write(call, server, *misfortunes)
    assert [i for ids in together for i in ids] == [e[0] for e in events if e is not None]
    assert all(len(set(ids)) == len(ids) for ids in together)
    stored: list[UUID] = []
    for event, outcome in zip(events, call.outcomes, strict=True):
        if event is None:
            assert isinstance(outcome, InvalidEvent)
        elif isinstance(outcome, Receipt) and outcome.status == "committed":
            assert outcome.entities[0].version == len(stored) + 1
            stored.append(outcome.event_id)
        elif isinstance(outcome, (Receipt, DuplicateEvent)):
            assert outcome.event_id == event[0]
            assert event[0] in stored
        else:
            assert event[1] == FAULTY or misfortunes
    assert set(stored) <= set(server.found)
