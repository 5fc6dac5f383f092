"""What a write decides between its attempts, on a database in memory."""

from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors
from tests.support.writer.callers import without_duration
from tests.support.writer.database_model import (
    Attempt,
    Committed,
    Failed,
    LookUp,
    Present,
    Result,
    Server,
    Wait,
    answer,
    conflict,
    kinds,
    lost,
    never,
    outcomes_of,
    pend,
    run,
    unreachable,
    write_steps,
)

from dsql_outbox.observability.facts import (
    AttemptEnded,
    Fact,
    RetryBudget,
    RetryScheduled,
    TransactionFailure,
    WriteEnded,
    WriteExhausted,
)
from dsql_outbox.outbox import DuplicateEvent, OutcomeUnknown, Receipt, StaleVersion
from dsql_outbox.writer.statement.answers import Stored
from dsql_outbox.writer.tuned_settings import TunedSettings

EVENT = UUID(int=1)
SYNTAX = Failed(errors.SyntaxError("SELEC"), sent=True)
TAKEN = Failed(errors.UniqueViolation("business_events_pkey"), sent=True)
ABSENT = Present({})


def test_each_attempt_tells_what_was_waited_before_it() -> None:
    facts: list[Fact] = []
    run([pend(facts=facts)], "conflict", "conflict")
    ended = [fact for fact in facts if isinstance(fact, AttemptEnded)]
    assert [(fact.number, fact.waited_s) for fact in ended] == [(1, 0.0), (2, 0.1), (3, 0.2)]
    assert [fact.outcome for fact in ended] == ["conflict", "conflict", "committed"]
    assert all(fact.started_ns <= fact.ended_ns for fact in ended)


def test_the_facts_of_a_retry_carry_what_can_be_counted() -> None:
    facts: list[Fact] = []
    run([pend(event_id=EVENT, facts=facts)], "conflict")
    (retry,) = (fact for fact in facts if isinstance(fact, RetryScheduled))
    assert (retry.event_id, retry.attempt, retry.wait_s, retry.events) == (EVENT, 1, 0.1, 1)
    assert retry.failure == TransactionFailure(
        host="db.example:5432",
        was_reached=False,
        error="SerializationFailure",
        text="change conflicts: (OC000)",
        sqlstate="40001",
        oc_class="OC000",
        budget=RetryBudget("conflict", 1, 3),
    )


def test_a_defect_in_the_steps_tells_of_each_event_what_is_known() -> None:
    """An answer for one event too few is met after the first was settled."""
    facts: list[Fact] = []
    stored, other = pend(facts=facts), pend(facts=facts)
    answer(write_steps([stored, other], never), Committed([Stored(1, (1,))]))
    assert isinstance(stored.outcome, Receipt)
    assert isinstance(other.outcome, OutcomeUnknown)
    assert isinstance(other.outcome.__cause__, ValueError)
    ended = [(fact.event_id, fact.status) for fact in facts if isinstance(fact, WriteEnded)]
    assert ended == [(stored.id, "committed"), (other.id, "unknown")]


def test_collisions_with_other_rows_run_out_as_conflicts_do() -> None:
    pending = pend()
    answer(write_steps([pending], never), *[TAKEN, ABSENT] * 4)
    assert isinstance(pending.outcome, errors.UniqueViolation)


def test_a_look_up_that_fails_is_made_up_for_by_another_attempt() -> None:
    server = Server()
    server.write([pend(event_id=EVENT)])
    pending = pend(event_id=EVENT)
    done = run([pending], "none", "unreachable", server=server)
    assert isinstance(pending.outcome, DuplicateEvent)
    assert kinds(done.steps) == [Attempt, LookUp, Wait, Attempt, LookUp]


@pytest.mark.parametrize(
    "later",
    [
        [ABSENT, conflict()] * 4,
        [ABSENT, conflict(), ABSENT, TAKEN, ABSENT] * 2,
        [ABSENT, SYNTAX],
        [unreachable(), ABSENT, SYNTAX],
        [ABSENT, TAKEN, Failed(errors.InsufficientPrivilege("business_events"))],
        [Failed(errors.InsufficientPrivilege("business_events"))],
    ],
    ids=["conflicts", "collisions", "fatal", "outage", "second look-up", "first look-up"],
)
def test_once_in_doubt_a_later_failure_leaves_the_outcome_unknown(later: Sequence[Result]) -> None:
    facts: list[Fact] = []
    pending = pend(event_id=EVENT, facts=facts)
    answer(write_steps([pending], never), lost(), *later)
    last = [result for result in later if isinstance(result, Failed)][-1]
    assert isinstance(pending.outcome, OutcomeUnknown)
    assert pending.outcome.event_id == EVENT
    assert pending.outcome.__cause__ is last.error
    assert without_duration(facts[-1]) == WriteEnded(
        EVENT, "unknown", pending.journal.attempts, pending.journal.conflicts, "OutcomeUnknown"
    )


@pytest.mark.parametrize(("first", "kind"), [(lost, OutcomeUnknown), (unreachable, psycopg.Error)])
def test_an_outage_that_outlasts_its_budget_ends_in_the_truth(
    first: Callable[[], Failed], kind: type[Exception]
) -> None:
    facts: list[Fact] = []
    pending = pend(settings=TunedSettings(jitter=0.0, max_outage=0.0), facts=facts)
    answer(write_steps([pending], never), first())
    assert isinstance(pending.outcome, kind)
    assert sum(isinstance(fact, WriteExhausted) for fact in facts) == 1


def test_a_server_that_goes_away_before_anything_was_sent_leaves_no_doubt() -> None:
    """As during the first look at the shards: code 57P01, but not of the write."""
    facts: list[Fact] = []
    pending = pend(facts=facts)
    steps = write_steps([pending], never)
    next(steps)
    assert isinstance(steps.send(Failed(errors.AdminShutdown("bye"), sent=False)), Wait)
    assert isinstance(steps.send(None), Attempt)
    assert outcomes_of(facts) == ["failed"]


def test_doubt_stays_until_the_end() -> None:
    done = run([pend()], "lost before", "none", "conflict", "none", "unreachable")
    assert kinds([s for s in done.steps if not isinstance(s, Wait)]) == [
        Attempt,
        *[LookUp, Attempt] * 3,
    ]


def test_a_lost_attempt_that_expects_a_later_version_may_still_commit() -> None:
    server = Server()
    pending = pend("C-1", expected=1)
    run([pending], "delay", server=server)
    assert isinstance(pending.outcome, OutcomeUnknown)
    server.write([pend("C-1")])
    server.arrive()
    assert pending.id in server.found


def test_a_version_that_was_passed_is_stale_even_after_a_doubt() -> None:
    server = Server()
    server.write([pend("C-1")])
    pending = pend("C-1", expected=0)
    run([pending], "delay", server=server)
    assert isinstance(pending.outcome, StaleVersion)
    server.arrive()
    assert pending.id not in server.found


def test_a_look_up_that_fails_after_stale_is_counted_as_an_outage() -> None:
    """Else a server that answers every second question would keep the call for ever."""
    server = Server()
    server.write([pend("C-1")])
    pending = pend("C-1", expected=0)
    done = run([pending], "delay", *["none", "none", "unreachable"] * 20, server=server)
    assert done.count(Wait) >= done.count(Attempt) - 1
    assert isinstance(pending.outcome, Exception)


def test_stale_is_measured_by_what_is_stored_and_not_by_the_batch() -> None:
    """The first is a duplicate: it moves nothing, and the second holds."""
    server = Server()
    server.write([pend("C-9", event_id=EVENT)])
    first, second = pend("C-1", event_id=EVENT), pend("C-1", expected=0)
    run([first, second], server=server)
    assert isinstance(first.outcome, DuplicateEvent)
    assert isinstance(second.outcome, Receipt)


def test_an_event_whose_version_its_own_batch_has_passed_is_stale() -> None:
    first, second, third = pend("C-2", "C-1"), pend("C-1", expected=0), pend("C-1")
    run([first, second, third])
    assert isinstance(first.outcome, Receipt)
    assert isinstance(second.outcome, StaleVersion)
    assert (second.outcome.expected, second.outcome.actual) == (0, 1)
    assert isinstance(third.outcome, Receipt)
    assert third.outcome.entities[0].version == 2


def test_a_number_that_only_looks_like_a_stale_version_is_the_drivers_error() -> None:
    text = f'invalid input syntax for type bigint: "stale {uuid4()} 7"'
    foreign = Failed(errors.InvalidTextRepresentation(text), sent=True)
    pending = pend()
    answer(write_steps([pending], never), foreign)
    assert pending.outcome is foreign.error
