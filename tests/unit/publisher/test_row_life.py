"""The life of a row: only the steps of the table, and books that are their sum at any moment."""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, get_args

import psycopg
import pytest
from benchmarks.simulation.random_schedules import random_schedule
from benchmarks.simulation.verdict import verdict
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.support.publisher.given_rows import row

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher.relay import sender, state
from dsql_outbox.publisher.relay.applier import Applier
from dsql_outbox.publisher.relay.memory import pages, paging, shares, subjects
from dsql_outbox.publisher.relay.memory.breaker import Breaker
from dsql_outbox.publisher.relay.memory.pages import DELIVERED, SENT, Page, Part
from dsql_outbox.publisher.relay.memory.rows import STAGES, STEPS, Rows
from dsql_outbox.publisher.relay.memory.subjects import Shard, Subject
from dsql_outbox.publisher.relay.outcomes import Outcomes
from dsql_outbox.publisher.relay.sender import Sender
from dsql_outbox.publisher.relay.settler import Settler
from dsql_outbox.publisher.relay.state import RelayState
from dsql_outbox.publisher.relay.store import Failure, StoredFailure, SubjectName
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Rejected, Retry, Unavailable
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import OutboxRow, RowId, Stage
from dsql_outbox.schema.session import CallTimedOut, FunctionFailed

ALL: tuple[Stage, ...] = get_args(Stage)


class AuditedRows(Rows):
    """Rows that compare their books with the stages of all copies of rows after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[OutboxRow] = []
        self.pages: list[Page] = []

    def move(self, of: OutboxRow | Part, to: Stage) -> None:
        """See `Rows.move`."""
        if of.stage == "outbox":
            self._note_new(of)
        super().move(of, to)
        self._audit()

    def _note_new(self, of: OutboxRow | Part) -> None:
        if isinstance(of, Part):
            self.pages.append(of.page)
        else:
            self.copies.append(of)

    def leave_page(self, page: Page, to: OutboxRow | Part) -> None:
        """See `Rows.leave_page`."""
        super().leave_page(page, to)
        self._note_new(to)

    @property
    def of_pages(self) -> list[tuple[Page, int, Stage]]:
        """The rows in pages."""
        return [
            (page, at, pages.STAGES[byte])
            for page in self.pages
            for at, byte in enumerate(page.stages)
            if byte != pages.GONE
        ]

    def _audit(self) -> None:
        self.copies = [each for each in self.copies if STAGES[each.stage].memory]
        self.pages = [page for page in self.pages if _is_used(page)]
        counted = [(each.share, each.shard, each.size, STAGES[each.stage]) for each in self.copies]
        for page, at, stage in self.of_pages:
            if STAGES[stage].memory:
                counted.append((page.topic, page.shard.number, page.sizes[at], STAGES[stage]))
        shares, shards = Counter[tuple[str, str]](), Counter[int]()
        for share, shard, size, one in counted:
            parts = {"rows": one.memory, "size": size, "busy": one.busy, "done": one.done}
            shares.update({(share, name): number for name, number in parts.items()})
            shards[shard] += one.unsettled
        uses = self.shares.uses
        names = ("rows", "size", "busy", "done")
        found = {(share, name): getattr(uses[share], name) for share in uses for name in names}
        assert found == shares
        assert self.shares.rows == len(counted)
        assert self.shares.size == sum(size for _, _, size, _ in counted)
        assert self.in_flight == sum(one.in_flight for *_, one in counted)
        assert self.busy_shards == {shard for shard, rows in shards.items() if rows}
        assert +self._unsettled == +shards


def _is_used(page: Page) -> bool:
    """Whether one of its rows is in it, and in memory."""
    return not {*page.stages} <= {pages.OUTBOX, pages.SETTLED, pages.GONE}


@pytest.fixture(autouse=True)
def _audited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "Rows", AuditedRows)


def through(way: Sequence[Stage]) -> tuple[Rows, OutboxRow]:
    rows, one = AuditedRows(), row("a", 1)
    for stage in way:
        rows.move(one, stage)
    return rows, one


WAYS: dict[Stage, tuple[Stage, ...]] = {
    "outbox": (),
    "waiting": ("waiting",),
    "sent": ("waiting", "sent"),
    "applying": ("waiting", "sent", "applying"),
    "burying": ("waiting", "sent", "burying"),
    "acknowledged": ("waiting", "sent", "acknowledged"),
    "settled": ("waiting", "sent", "acknowledged", "settled"),
}


@pytest.mark.parametrize("to", ALL)
@pytest.mark.parametrize("stage", ALL)
def test_a_row_takes_the_steps_of_the_table_and_no_others(stage: Stage, to: Stage) -> None:
    rows, one = through(WAYS[stage])
    if (stage, to) in STEPS:
        rows.move(one, to)
        assert one.stage == to
    else:
        with pytest.raises(AssertionError, match=f"from stage {stage} to {to}"):
            rows.move(one, to)
        assert one.stage == stage


@pytest.mark.parametrize(
    "first", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (5_001, 9_001))]
)
def test_the_books_are_exact_in_any_schedule_of_faults(first: int) -> None:
    for seed in range(first, first + 12):
        assert verdict(random_schedule(seed))[1] == [], seed


class Tables:
    """A table of one shard, under the statements of the settler; the next one may fail."""

    def __init__(self) -> None:
        self.rows: dict[RowId, OutboxRow] = {}
        self.failures: dict[RowId, Failure] = {}
        self.fails: dict[str, bool] = {}
        """The next statement of a kind has no answer; True: it ran nevertheless."""

    async def delete(self, rows: Collection[RowId]) -> int:
        """See `Store.delete`."""
        return len(rows) if self._change("delete", lambda: self._settle(rows)) else 0

    async def bury(self, letters: Collection[Letter]) -> None:
        """See `Store.bury`."""
        self._change("bury", lambda: self._settle([each.row for each in letters]))

    async def record(self, failures: Collection[Failure]) -> None:
        """See `Store.record`."""
        new = {each.row: each for each in failures if each.row in self.rows}
        self._change("record", lambda: self.failures.update(new))

    async def forget(self, rows: Collection[RowId]) -> None:
        """See `Store.forget`."""
        self._change("forget", lambda: [self.failures.pop(each, None) for each in rows])

    async def apply(
        self,
        rows: Collection[RowId],
        calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,
    ) -> bool:
        """See `Store.apply`. The function fails in the middle of the batch; True: it is slow."""
        if not self.rows.keys() >= set(rows):
            return False
        if (is_slow := self.fails.pop("function", None)) is not None:
            for call in calls[: 1 + len(calls) // 2]:
                await call(None)  # type: ignore[arg-type]
            raise FunctionFailed(
                CallTimedOut(10.0 if is_aside else 1.0) if is_slow else ValueError()
            )
        return self._change("apply", lambda: self._settle(rows))

    def _settle(self, rows: Collection[RowId]) -> None:
        for each in rows:
            self.rows.pop(each, None)
            self.failures.pop(each, None)

    def _change(self, kind: str, change: Callable[[], object]) -> bool:
        runs = self.fails.pop(kind, None)
        if runs is not False:
            change()
        if runs is not None:
            raise psycopg.OperationalError("no answer")
        return True


class Lease:
    """The lease of shard 0."""

    def __init__(self) -> None:
        self.epoch = 1
        self.lasts = True

    def has_lease(self, _shard: int, epoch: int) -> bool:
        """See `Leases`."""
        return self.lasts and epoch == self.epoch

    may_send = has_lease


def without_wait(work: Coroutine[None, None, None]) -> None:
    """Run a coroutine that awaits nothing, in the task of the test: hypothesis cannot await."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


async def nothing(_connection: AsyncConnection, _message: Message) -> None: ...


OUTCOMES = st.sampled_from(
    [Delivered(), Delivered(), Retry("no"), Rejected("no"), Unavailable("no"), NotAttempted()]
)
STATEMENTS = st.sampled_from(["delete", "bury", "record", "forget", "apply", "function"])


class Life(RuleBasedStateMachine):
    """The real queues, sender, outcomes and settler, with a reader that reads all rows."""

    @initialize(applies=st.booleans())
    def begin(self, applies: bool) -> None:
        self.now = 1_000.0
        self.tables, self.lease = Tables(), Lease()
        self.aside: list[Callable[[], Awaitable[None]]] = []
        self.state = RelayState(lambda: self.now)
        settled = TunedSettings(attempts=2, backoff_base=1)
        self.outcomes = Outcomes(self.state, settled, self.lease)  # type: ignore[arg-type]
        self.settler = Settler(self.state, self.tables, settled, self.outcomes)  # type: ignore[arg-type]
        if applies:
            applier = Applier(self.state, self.tables, nothing, self.outcomes)  # type: ignore[arg-type]
            applier.begin(self.aside.append)
            self.settler.applier, self.outcomes.apply = applier, applier.add
            self.state.queues.has_pages = False
        breaker = Breaker()
        sink = SimpleNamespace(keeps_prefix=True)
        self.sender = Sender(self.state, sink, self.lease, self.outcomes, breaker)  # type: ignore[arg-type]
        self.shard = self.state.shards[0] = Shard(0, 1)
        self.lost: list[Shard] = []
        self.in_flight: list[Subject | Page] = []
        self.reading: tuple[Shard, list[OutboxRow]] | None = None
        self.written = 0
        self.last: dict[int, int] = {}
        self.arrived: dict[str, list[int]] = {}

    @rule(subject=st.integers(0, 3), number=st.integers(1, 5))
    def write(self, subject: int, number: int) -> None:
        for _ in range(number):
            self.written += 1
            at, before = self.written, self.last.get(subject, 0)
            self.last[subject] = at
            one = row(str(subject), at, previous=before, topic=f"t{subject % 2}")
            self.tables.rows[one.id] = one

    @rule()
    def begin_read(self) -> None:
        self.state.rows.begin_read()
        there = {(each.subject_id, each.position) for each in self.tables.rows.values()}
        self.reading = (
            self.shard,
            [
                row(
                    each.subject_id,
                    each.position,
                    previous=each.previous_position,
                    topic=each.topic,
                    waits=(each.subject_id, each.previous_position) in there,
                )
                for each in self.tables.rows.values()
            ],
        )

    @precondition(lambda self: self.reading is not None)
    @rule()
    def end_read(self) -> None:
        assert self.reading is not None
        (shard, rows), self.reading = self.reading, None
        known = [each.id for each in self.state.rows.copies if each.stage == "acknowledged"]  # type: ignore[attr-defined]
        if not shard.is_lost:
            queues, topics = self.state.queues, self.state.topics
            _, others = queues.admit_pages(shard, [each.raw for each in rows], topics)
            rows = list(map(OutboxRow.read, others))
            queues.admit(shard, rows, self.now, topics, None)
        self.state.rows.end_read()
        assert not any(each.id in known and each.stage == "waiting" for each in rows)
        topics = self.state.topics
        for probe in topics.probes(self.now):  # as the reader: such a row is gone, or waits
            if probe not in self.state.rows.known:
                topics.give_up_probe(probe)
        for subject in list(shard.subjects.values()):
            for hold in [each for each in subject.holds if each.id not in self.tables.rows]:
                if not subject.busy and not shard.is_lost:
                    self.state.retry_times.forget(subject, hold.id)

    @rule(most=st.integers(1, 5), number=st.integers(0, 2), subject=st.integers(0, 3))
    def write_read_and_send(self, most: int, number: int, subject: int) -> None:
        self.write(subject, number)
        if self.reading is None:
            self.begin_read()
            self.end_read()
        self.send(most)

    @rule(most=st.integers(1, 5))
    def send(self, most: int) -> None:
        self.state.queues.end_rests(self.now)
        self.in_flight += self.sender._take(most, 1_000)

    @precondition(lambda self: self.in_flight)
    @rule(index=st.integers(0, 100), outcome=OUTCOMES)
    def answer(self, index: int, outcome: Delivered | Retry | Rejected | Unavailable) -> None:
        owner = self.in_flight[index % len(self.in_flight)]
        if isinstance(owner, Page):
            self.answer_page(owner, index, outcome)
            return
        sent = owner.busy_row
        self.note_arrival(sent.subject_id, sent.position, outcome, owner.shard)
        self.outcomes.act_on(owner, outcome)
        self.see_who_left()

    def answer_page(self, page: Page, index: int, outcome: Any) -> None:
        """As a call does: a row that is delivered waits for the turn of its page."""
        firsts = [
            at for at, byte in enumerate(page.stages) if byte == SENT and page.run(at)[0] == at
        ]
        if not firsts:  # the shard was lost: those without an answer have left
            self.end_delivered()
            return
        at = firsts[index % len(firsts)]
        self.note_arrival(page.rows[at][6], page.ids[at].position, outcome, page.shard)
        if isinstance(outcome, Delivered):
            page.stages[at] = DELIVERED
            page.answered.append(at)
            if SENT in page.stages:
                return
        self.end_delivered()
        if not isinstance(outcome, Delivered):
            self.outcomes.act_on(self.outcomes.take_out(page, at), outcome)
        self.see_who_left()

    def note_arrival(self, subject: str, position: int, outcome: Any, shard: Shard) -> None:
        if isinstance(outcome, Delivered) and not shard.is_lost:
            before = self.arrived.setdefault(subject, [])
            assert position in before or position > max(before, default=0)
            before.append(position)

    @rule()
    def end_delivered(self) -> None:
        """Do what a call does at the end of a turn of the loop."""
        for page in self.in_flight:
            if isinstance(page, Page) and page.answered:
                at, page.answered = page.answered, []
                self.outcomes.deliver_part(Part(page, at))
        self.see_who_left()

    def see_who_left(self) -> None:
        """Rows that left a page on its way are still on their way, with those in it."""
        for each in [*self.in_flight]:
            if isinstance(each, Page):
                for subject in dict.fromkeys(each.subjects.values()):
                    if subject not in self.in_flight:
                        self.in_flight.append(subject)
                each.subjects.clear()
        self.in_flight = [each for each in self.in_flight if self.is_on_its_way(each)]

    def is_on_its_way(self, each: Subject | Page) -> bool:
        if isinstance(each, Page):
            return SENT in each.stages or DELIVERED in each.stages
        return any(row.stage == "sent" for row in each.busy)

    @rule(fails=st.dictionaries(STATEMENTS, st.booleans(), max_size=2))
    def settle(self, fails: Mapping[str, bool]) -> None:
        self.tables.fails = dict(fails)
        with suppress(psycopg.Error):
            without_wait(self.settler.settle())
        self.tables.fails = {}

    @precondition(lambda self: self.aside)
    @rule(index=st.integers(0, 100), fails=st.dictionaries(STATEMENTS, st.booleans(), max_size=1))
    def apply_aside(self, index: int, fails: Mapping[str, bool]) -> None:
        self.tables.fails = dict(fails)
        without_wait(self.aside.pop(index % len(self.aside))())  # type: ignore[arg-type]
        self.tables.fails = {}

    @rule()
    def lapse_or_renew(self) -> None:
        self.lease.lasts = not self.lease.lasts

    @rule(is_taken_again=st.booleans(), sends=st.integers(0, 5))
    def lose(self, is_taken_again: bool, sends: int) -> None:
        """The shard comes back at once; a lease that lapsed and was renewed has the same epoch."""
        self.state.queues.forget_shard(self.shard)
        self.lost.append(self.shard)
        self.lease.epoch += is_taken_again
        self.lease.lasts = True
        self.shard = self.state.shards[0] = Shard(0, self.lease.epoch)
        for each in self.tables.failures.values():
            one = self.tables.rows[each.row]
            name = SubjectName(one.subject_type, one.subject_id)
            failure = StoredFailure(each.row, name, each.attempts, each.seconds or math.inf)
            self.shard.restore_failure(failure, one.key, self.now)
        self.write_read_and_send(sends, 0, 0)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def share(self) -> None:
        self.state.rows.shares.review(self.now)
        self.state.queues.make_room([self.shard])

    @invariant()
    def each_row_is_at_the_place_of_its_stage(self) -> None:
        self.see_who_left()
        rows: AuditedRows = self.state.rows  # type: ignore[assignment]
        stages: dict[str, set[int]] = {stage: set() for stage in ALL}
        for copy in rows.copies:
            stages[copy.stage].add(id(copy))
        here = list(self.shard.subjects.values())
        assert stages["waiting"] == {id(each) for of in here for each in of.rows}
        sent = [each for each in self.in_flight if isinstance(each, Subject)]
        assert stages["sent"] == {id(each) for of in sent for each in of.busy}
        self.rows_of_pages_are_at_their_places()
        assert stages["acknowledged"] == {id(r) for r in self.state.changes.acknowledged.values()}
        buried = [of for _, of in self.state.changes.letters.values()]
        assert stages["burying"] == {id(of.busy_row) for of in buried}
        if self.settler.applier is not None:
            applier = self.settler.applier
            applied = [*applier._waiting.values(), *applier._aside.values()]
            rows_to_apply = [row for of in applied for row in of.busy]
            assert stages["applying"] == {id(row) for row in rows_to_apply}
            assert self.state.changes.applying == len(rows_to_apply)
        for copy in rows.copies:
            assert copy.id in rows.known or copy.id not in self.tables.rows or copy.stage in BUSY
        assert all(isinstance(each, Page) or each.stage != "outbox" for each in rows.known.values())
        assert not any(of.rows for shard in self.lost for of in shard.subjects.values())

    def rows_of_pages_are_at_their_places(self) -> None:
        rows: AuditedRows = self.state.rows  # type: ignore[assignment]
        parts = [(each.page, at) for each in self.state.changes.parts for at in each.indexes]
        queued = {id(each) for of in self.state.queues._ready.values() for each in of}
        on_their_way = {id(each) for each in self.in_flight}
        for page, at, stage in rows.of_pages:
            key, shard = page.keys[at], page.shard
            assert stage != "waiting" or id(page) in queued
            assert stage != "sent" or id(page) in on_their_way
            assert (stage == "acknowledged") == (parts.count((page, at)) == 1)
            if page.stages[at] in {pages.WAITING, SENT}:
                assert self.state.queues.pages[shard][key] is page
                assert key not in shard.subjects
        here = {id(page) for page, _, _ in rows.of_pages}
        assert {id(each) for each in self.state.queues.pages[self.shard].values()} <= here

    def teardown(self) -> None:
        """Without faults everything leaves, and the books are empty."""
        if not hasattr(self, "lease"):
            return
        self.lease.lasts = True
        for _ in range(200):
            while self.in_flight:
                self.answer(0, Delivered())
            self.settle({})
            while self.aside:
                self.apply_aside(0, {})
            if not self.tables.rows and not self.state.rows.shares.rows and self.settler.is_done:
                break  # a message that is applied aside may leave a failure to forget
            self.now += 400.0
            self.share()
            self.begin_read()
            self.end_read()
            self.send(5)
        rows = self.state.rows
        assert not self.tables.rows
        for _ in range(2):
            self.begin_read()
            self.end_read()
        assert (rows.shares.rows, rows.shares.uses, rows.busy_shards) == (0, {}, set())
        assert (rows.known, rows._positions, rows._settled) == ({}, {}, [])
        assert self.settler.is_done


BUSY = {"sent", "applying", "burying"}


@pytest.mark.anyio
async def test_any_order_of_steps_leaves_the_books_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Page, "LEAST", 1)
    monkeypatch.setattr(paging, "MOST", 4)
    monkeypatch.setattr(paging, "LONGEST", 3)
    monkeypatch.setattr(subjects, "MAX_WAITING", 4)
    monkeypatch.setattr(subjects, "_RUNS", 2)
    monkeypatch.setattr(sender, "MAX_RUN", 3)
    monkeypatch.setattr(shares, "MAX_ROWS", 12)
    monkeypatch.setattr(sender, "MAX_IN_FLIGHT", 64)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Life,
        settings=settings(
            max_examples=40,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        ),
    )
