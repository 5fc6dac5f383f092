"""The budgets of a write, and what is told of a failure that counts against one."""

import psycopg
import pytest
from psycopg import errors
from tests.support.writer.database_model import (
    Attempt,
    Failed,
    Present,
    Wait,
    answer,
    never,
    pend,
    run,
    write_steps,
)

from dsql_outbox.observability.facts import (
    Fact,
    RetriesExhausted,
    RetryBudget,
    RetryScheduled,
    WriteExhausted,
)
from dsql_outbox.outbox import Receipt
from dsql_outbox.writer.tuned_settings import TunedSettings


def test_a_schema_change_does_not_split_a_batch() -> None:
    """It concerns the session, so no single event is at fault."""
    batch = [pend() for _ in range(8)]
    done = run(batch, *["schema change"] * 5)
    assert all(isinstance(pending.outcome, Receipt) for pending in batch)
    assert (done.count(Attempt), done.count(Wait)) == (6, 5)


def test_a_transaction_tells_its_retry_and_its_end_once_however_many_events_it_has() -> None:
    facts: list[Fact] = []
    settings = TunedSettings(jitter=0.0, max_outage=0.2)
    batch = [pend(facts=facts, settings=settings) for _ in range(100)]
    run(batch, *["unreachable"] * 10)
    retries = [fact for fact in facts if isinstance(fact, RetryScheduled)]
    ends = [fact for fact in facts if isinstance(fact, RetriesExhausted)]
    assert [(fact.attempt, fact.events) for fact in retries] == [(1, 100)]
    assert [(fact.attempts, fact.events) for fact in ends] == [(2, 100)]
    assert sum(isinstance(fact, WriteExhausted) for fact in facts) == 100


def test_a_deadline_that_ends_the_retries_is_told() -> None:
    facts: list[Fact] = []
    run([pend(facts=facts, deadline=0.05)], "conflict")
    (end,) = (fact for fact in facts if isinstance(fact, RetriesExhausted))
    assert (end.is_cut_short, end.failure.budget) == (
        True,
        RetryBudget("conflict", 1, 3, 0.05),
    )


@pytest.mark.parametrize("kind", [KeyError, errors.InternalError_, psycopg.DataError])
def test_a_text_that_may_quote_an_event_is_in_no_fact(kind: type[Exception]) -> None:
    facts: list[Fact] = []
    defect = Failed(kind("owner: J. Doe"), sent=True)
    syntax = Failed(errors.SyntaxError("SELEC"), sent=True)
    answer(write_steps([pend(facts=facts)], never), defect, Present({}), syntax)
    (retry,) = (fact for fact in facts if isinstance(fact, RetryScheduled))
    assert (retry.failure.text, retry.failure.budget.reason) == (kind.__name__, "outage")
