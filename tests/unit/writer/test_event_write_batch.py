"""What happens to a batch that cannot commit as a whole, and to one that is interrupted."""

from collections.abc import Callable, Sequence
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from tests.support.writer.database_model import (
    FAULTY,
    Attempt,
    Failed,
    LookUp,
    Present,
    Result,
    Server,
    Steps,
    answer,
    conflict,
    kinds,
    lost,
    never,
    pend,
    run,
    send,
    write_steps,
)

from dsql_outbox.observability.facts import AttemptEnded, Fact, WriteEnded
from dsql_outbox.outbox import OutcomeUnknown, Receipt, SchemaError
from dsql_outbox.writer.attempt.pending import Pending

EVENT = UUID(int=1)
SYNTAX = Failed(errors.SyntaxError("SELEC"), sent=True)
TAKEN = Failed(errors.UniqueViolation("business_events_pkey"), sent=True)
ABSENT = Present({})


def test_an_attempt_right_after_a_split_tells_of_no_wait() -> None:
    facts: list[Fact] = []
    run([pend(facts=facts), pend(name=FAULTY)], "unreachable")
    ended = [fact for fact in facts if isinstance(fact, AttemptEnded)]
    assert [(fact.waited_s, fact.outcome) for fact in ended] == [
        (0.0, "failed"),
        (0.1, "failed"),
        (0.0, "committed"),
    ]


@pytest.mark.parametrize(
    "error",
    [
        errors.UndefinedTable("outbox_leases"),
        errors.InsufficientPrivilege("outbox_leases"),
        psycopg.OperationalError("password authentication failed"),
        SchemaError("schema outbox has no shards"),
        psycopg.ProgrammingError("no SQLSTATE"),
        TypeError("a mistake of ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_failed_before_the_write_was_sent_is_not_split(error: Exception) -> None:
    batch = [pend() for _ in range(8)]
    steps = answer(write_steps(batch, never), Failed(error))
    assert kinds(steps) == [Attempt]
    assert [type(pending.outcome) for pending in batch] == [type(error)] * 8


def test_every_event_of_a_failed_batch_gets_an_exception_of_its_own() -> None:
    """With its own note: one that is shared would tell each caller of all the others."""
    batch = [pend(deadline=0.0) for _ in range(4)]
    error = errors.TooManyConnections("the server is full")
    error.__cause__ = OSError("why")
    error.add_note("of the driver")
    answer(write_steps(batch, never), Failed(error))
    ends = [pending.outcome for pending in batch]
    assert ends[0] is error
    assert len({id(end) for end in ends}) == 4
    for pending, end in zip(batch, ends, strict=True):
        assert isinstance(end, errors.TooManyConnections)
        assert (str(end), end.sqlstate) == ("the server is full", "53300")
        assert end.__cause__ is error.__cause__
        assert end.__notes__ == [
            "of the driver",
            f"event {pending.id} was not stored by this call: attempts 1, conflicts 0",
        ]


def test_a_conflicted_batch_is_halved_after_its_wait() -> None:
    batch = [pend() for _ in range(4)]
    done = run(batch, "conflict")
    sizes = [len(step.batch) for step in done.steps if isinstance(step, Attempt)]
    assert sizes == [4, 2, 2]
    fresh = [step.fresh for step in done.steps if isinstance(step, Attempt)]
    assert fresh == [False, True, False], "the connection that did well is used on"


def written(batch: Sequence[Pending], fault: Callable[[Attempt], Failed | None]) -> Server:
    """The server after the batch; each attempt meets the `fault`, or is carried out."""
    steps, result, server = write_steps(batch, never), None, Server()
    while True:
        try:
            step = steps.send(result)
        except StopIteration:
            return server
        result = server.read(step.ids) if isinstance(step, LookUp) else None
        if isinstance(step, Attempt):
            result = fault(step) or server.try_write(step.batch)


def test_the_last_try_of_an_event_is_its_own() -> None:
    """One foreign hot entity makes nobody else fail, however many share its transaction."""
    batch, tried = [pend() for _ in range(100)], list[Attempt]()

    def fault(step: Attempt) -> Failed | None:
        tried.append(step)
        return conflict() if batch[70] in step.batch else None

    written(batch, fault)
    failed = [pending for pending in batch if isinstance(pending.outcome, Exception)]
    assert failed == [batch[70]]
    assert isinstance(batch[70].outcome, errors.SerializationFailure)
    assert len(tried) < 40


def test_no_event_overtakes_one_that_waits_behind_an_event_that_fails() -> None:
    """It shares no entity with the one that fails."""
    # The halves of such a batch have the third and the fourth one together.
    batch = [pend("a"), pend(), pend("a", "b"), pend("b"), *(pend() for _ in range(4))]
    crashes = [Failed(errors.InternalError_("one event is at fault"), sent=True)] * 6
    server = written(
        batch, lambda step: crashes.pop() if crashes and batch[0] in step.batch else None
    )
    positions = [server.found[pending.id].position for pending in batch]
    assert positions[2] < positions[3]
    assert positions[0] == len(batch) - 2, "the others have not waited for it"


def test_a_lost_batch_that_commits_while_its_halves_are_written_is_found_by_each() -> None:
    """It held all events: the first half's insert collides, the second half's look-up finds."""
    batch = [pend("C-1") for _ in range(4)]
    done = run(batch, "delay", "none", "conflict", "none", "arrival")
    assert [type(p.outcome) for p in batch] == [Receipt] * 4
    sizes = [len(s.batch) for s in done.steps if isinstance(s, Attempt)]
    assert sizes == [4, 4, 2]


def test_a_lost_batch_that_arrives_after_a_half_committed_is_shut_out() -> None:
    batch, server = [pend("C-1") for _ in range(4)], Server()
    done = run(batch, "delay", "none", "conflict", "none", "none", "arrival", server=server)
    sizes = [len(s.batch) for s in done.steps if isinstance(s, Attempt)]
    assert sizes == [4, 4, 2, 2]
    versions = [p.outcome.entities[0].version for p in batch if isinstance(p.outcome, Receipt)]
    assert versions == [1, 2, 3, 4]


def test_a_batch_in_which_only_some_are_in_doubt_settles_each_by_its_own_history() -> None:
    doubtful, certain = pend("C-1"), pend("C-2")
    doubtful.in_doubt = True
    answer(write_steps([doubtful, certain], never), ABSENT, SYNTAX, ABSENT, SYNTAX, SYNTAX)
    assert isinstance(doubtful.outcome, OutcomeUnknown)
    assert isinstance(certain.outcome, errors.SyntaxError)


def test_each_event_gives_up_by_its_own_deadline() -> None:
    hasty, patient = pend(deadline=0.05), pend()
    done = run([hasty, patient], "conflict")
    assert isinstance(hasty.outcome, errors.SerializationFailure)
    assert isinstance(patient.outcome, Receipt)
    assert done.waits() == [0.1]


def sent(steps: Steps) -> None:
    step = steps.send(None)
    assert isinstance(step, Attempt)
    send(step.batch)


def at(*results: Result) -> Callable[[Steps], None]:
    def reach(steps: Steps) -> None:
        for result in (None, *results):
            steps.send(result)

    return reach


@pytest.mark.parametrize(
    ("reach", "status"),
    [
        (at(), "failed"),
        (sent, "unknown"),
        (at(conflict()), "failed"),
        (at(lost()), "unknown"),
        (at(lost(), None, ABSENT), "unknown"),
        (at(TAKEN), "failed"),
    ],
    ids=["attempt", "sent", "wait", "wait in doubt", "attempt in doubt", "look-up"],
)
def test_an_interrupted_call_says_what_may_be_assumed(
    reach: Callable[[Steps], None], status: str
) -> None:
    facts: list[Fact] = []
    pending = pend(facts=facts)
    steps = write_steps([pending], never)
    reach(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    ends = [fact for fact in facts if isinstance(fact, WriteEnded)]
    assert [(end.status, end.error) for end in ends] == [(status, "KeyboardInterrupt")]


def test_an_interrupted_batch_ends_each_event_once_however_often_it_was_split() -> None:
    facts: list[Fact] = []
    batch = [pend(facts=facts, name=FAULTY) for _ in range(8)]
    steps, server = write_steps(batch, never), Server()
    step = steps.send(None)
    while not (isinstance(step, Attempt) and step.batch == [batch[1]]):
        assert isinstance(step, Attempt)
        step = steps.send(server.try_write(step.batch))
    send(step.batch)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt())
    ends = {fact.event_id: fact.status for fact in facts if isinstance(fact, WriteEnded)}
    assert sum(isinstance(fact, WriteEnded) for fact in facts) == 8
    assert [ends[p.id] for p in batch] == ["failed", "unknown", *["failed"] * 6]
