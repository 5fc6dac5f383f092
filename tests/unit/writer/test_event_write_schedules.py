"""Any schedule of faults, conflicts, duplicates, rivals and stale versions: never a lie."""

from asyncio import CancelledError
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.writer.database_model import (
    FAULTY,
    SETTINGS,
    Run,
    Server,
    outcomes_of,
    pend,
    write_steps,
)

from dsql_outbox.observability.facts import AttemptEnded, Fact, RetryScheduled, WriteEnded
from dsql_outbox.outbox import DuplicateEvent, OutcomeUnknown, Receipt, StaleVersion
from dsql_outbox.writer import WriterSettings
from dsql_outbox.writer.attempt.pending import Pending
from dsql_outbox.writer.tuned_settings import TunedSettings

A_MISFORTUNE = st.sampled_from(
    [
        "none",
        "none",
        "conflict",
        "collision",
        "unreachable",
        "lost before",
        "lost after",
        "delay",
        "arrival",
        "arrival",
        "another",
        "another",
        "fatal",
    ]
)
AN_EVENT = st.tuples(
    st.lists(st.sampled_from(["C-1", "C-2", "C-3"]), min_size=1, max_size=3, unique=True),
    st.sampled_from(["Car Sold"] * 5 + [FAULTY]),
    st.none() | st.integers(0, 3),
    st.sampled_from(["error", "return"]),
    st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(
    events=st.lists(AN_EVENT, min_size=1, max_size=6),
    misfortunes=st.lists(A_MISFORTUNE, max_size=25),
    rivals=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["C-1", "C-2"]))),
    max_retries=st.integers(0, 4),
    timeout=st.none() | st.floats(0.0, 1.0),
    meets_first=st.booleans(),
    leaves=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), st.booleans())),
)
def test_whatever_happens_nobody_is_told_a_lie(
    events: list[tuple[list[str], str, int | None, str, bool]],
    misfortunes: list[str],
    rivals: list[tuple[int, str]],
    max_retries: int,
    timeout: float | None,
    *,
    meets_first: bool,
    leaves: list[tuple[int, int, bool]],
) -> None:
    """The test that stands for the promise of this library."""
    facts: list[Fact] = []
    batch = [
        pend(
            *entities,
            name=name,
            expected=expected,
            on_duplicate=on_duplicate,  # type: ignore[arg-type]
            settings=TunedSettings(jitter=0.0, max_outage=2.0, max_retries=max_retries),
            deadline=timeout,
            facts=facts,
        )
        for entities, name, expected, on_duplicate, _ in events
    ]
    left = list(rivals)

    def rival(server: Server) -> None:
        """Somebody else writes one of the ids, or just moves an entity."""
        n, entity = left.pop(0) if left else (9, "C-1")
        server.try_write([pend(entity, event_id=batch[n].id if n < len(batch) else None)])

    server = Server(meets_first=meets_first)
    for pending, (*_, stored_before) in zip(batch, events, strict=True):
        if stored_before and pending.prepared.expected_version == 3:
            server.try_write([pend("C-1", event_id=pending.id)])
    done = Run(server, misfortunes, others=rival, before=partial(leave, batch, leaves))
    done(write_steps(batch, done.clock))
    while server.delayed:
        server.arrive()
    for pending in batch:
        assert_true(server, pending)
        assert_facts(facts, pending, max_retries)
    if timeout is not None:
        assert done.now <= timeout
    assert_order(batch)


def leave(batch: Sequence[Pending], leaves: Sequence[tuple[int, int, bool]], step: int) -> None:
    """End some calls at their deadline or by cancellation, as in a lane."""
    for when, n, is_late in leaves:
        if when != step or n >= len(batch):
            continue
        if is_late:
            assert batch[n].expire()  # between two steps nothing is on its way
        elif not batch[n].may_be_stored:
            batch[n].abandon(CancelledError())


def assert_true(server: Server, pending: Pending) -> None:
    """What the caller was told, against what is stored."""
    outcome, found = pending.outcome, server.found.get(pending.id)
    mine = found is not None and found.write_id == pending.prepared.write_id
    if isinstance(outcome, Receipt):
        assert found is not None
        assert mine == (outcome.status == "committed")
        assert (outcome.position, outcome.entities) == (found.position, found.entities)
    elif isinstance(outcome, OutcomeUnknown):
        assert pending.in_doubt
    elif outcome is None:
        assert not pending.is_open
        assert not mine
    else:
        assert isinstance(outcome, Exception)
        assert not mine
        if isinstance(outcome, DuplicateEvent):
            assert found is not None
            same = found.fingerprint == pending.prepared.event.fingerprint
            assert outcome.same_content is same
        if isinstance(outcome, StaleVersion):
            subject = pending.prepared.event.touches[0]
            assert outcome.expected != outcome.actual
            assert outcome.actual <= server.versions[subject.entity_type, subject.entity_id]


def assert_facts(facts: Sequence[Fact], pending: Pending, max_retries: int) -> None:
    """Attempts are numbered through, one fact each; the call ends once, and last."""
    mine = [fact for fact in facts if fact.event_id == pending.id]  # type: ignore[union-attr]
    attempts = [fact for fact in mine if isinstance(fact, AttemptEnded)]
    assert [fact.number for fact in attempts] == list(range(1, len(attempts) + 1))
    assert [fact for fact in mine if isinstance(fact, WriteEnded)] == mine[-1:]
    retries = [fact for fact in mine if isinstance(fact, RetryScheduled)]
    assert sum(fact.conflict for fact in retries) <= max_retries
    if isinstance(pending.outcome, Receipt):
        assert pending.outcome.attempts == len(attempts)
    if not pending.in_doubt:
        assert "in_doubt" not in outcomes_of(mine)


def assert_order(batch: Sequence[Pending]) -> None:
    """Events of one subject are stored in the order of the batch."""
    last: dict[str, int] = {}
    for pending in batch:
        if isinstance(pending.outcome, Receipt) and pending.outcome.status == "committed":
            subject = pending.outcome.entities[0]
            assert subject.version > last.get(subject.entity_id, 0)
            last[subject.entity_id] = subject.version


def test_the_defaults_of_these_tests_are_those_of_the_users() -> None:
    assert WriterSettings.origin() == SETTINGS


@settings(max_examples=200, deadline=None)
@given(
    events=st.lists(AN_EVENT, min_size=1, max_size=6),
    misfortunes=st.lists(A_MISFORTUNE, max_size=12),
    steps_before=st.integers(0, 12),
)
def test_whenever_the_caller_is_cancelled_each_event_ends_once(
    events: list[tuple[list[str], str, int | None, str, bool]],
    misfortunes: list[str],
    steps_before: int,
) -> None:
    """Also amid the parts of a batch that was split."""
    facts: list[Fact] = []
    pend_one = partial(pend, settings=SETTINGS, facts=facts)
    batch = [pend_one(*keys, name=name, expected=version) for keys, name, version, _, _ in events]
    server = Server()
    done = Run(server, misfortunes)
    steps = write_steps(batch, done.clock)
    step, result = next(steps), None
    with suppress(StopIteration):
        for _ in range(steps_before):
            result = done.do(step)
            step = steps.send(result)
        done.do(step)
        with pytest.raises(CancelledError):
            steps.throw(CancelledError())
    ended = Counter(fact.event_id for fact in facts if isinstance(fact, WriteEnded))
    assert ended == {pending.id: 1 for pending in batch}
    for fact in facts:
        if isinstance(fact, WriteEnded) and fact.status in {"committed", "failed"}:
            assert (fact.event_id in server.found) is (fact.status == "committed")
