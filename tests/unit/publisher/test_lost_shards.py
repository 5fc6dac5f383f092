"""Rows of a shard that is lost and taken again while the database does not answer."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio.lowlevel
import pytest
from tests.support.publisher.given_rows import row

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher.relay.applier import Applier
from dsql_outbox.publisher.relay.memory.subjects import Shard, Subject
from dsql_outbox.publisher.relay.outcomes import Outcomes
from dsql_outbox.publisher.relay.settler import Settler
from dsql_outbox.publisher.relay.state import RelayState
from dsql_outbox.publisher.relay.store import Failure
from dsql_outbox.publisher.sinks import Rejected, Retry
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.schema.session import CallTimedOut, FunctionFailed

pytestmark = pytest.mark.anyio

DEFAULTS = TunedSettings()


class Tables:
    """Tables that take every change."""

    async def bury(self, _letters: object) -> None: ...

    async def delete(self, rows: Collection[RowId]) -> int:
        return len(rows)

    async def apply(
        self,
        _rows: Collection[RowId],
        _calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,  # noqa: ARG002 - it costs no time here
    ) -> bool:
        return True


async def nothing(_connection: AsyncConnection, _message: Message) -> None: ...


def sent(state: RelayState, epoch: int, n: int = 1) -> Subject:
    """The subject of a row that was read under an epoch, and sent."""
    shard = Shard(0, epoch)
    state.queues.admit(shard, [row(f"a{n}", n)], state.clock(), state.topics, None)
    (subject,) = state.queues.take(1, free=10_000, of=100_000, may_send=lambda _: True)
    return subject


class Lasting:
    """Leases that last, or not."""

    def __init__(self, *, last: bool = True) -> None:
        self._last = last

    def has_lease(self, _shard: int, _epoch: int) -> bool:
        return self._last


def parts_of(
    state: RelayState,
    tables: Tables,
    settings: TunedSettings = DEFAULTS,
    *,
    last: bool = True,
) -> tuple[Outcomes, Settler]:
    outcomes = Outcomes(state, settings, Lasting(last=last))  # type: ignore[arg-type]
    return outcomes, Settler(state, tables, settings, outcomes)  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", ["given up", "applied", "acknowledged"])
async def test_a_row_that_was_to_be_settled_twice_leaves_no_shard_busy(outcome: str) -> None:
    state = RelayState(asyncio.get_running_loop().time)
    outcomes, settler = parts_of(state, Tables())
    applier = Applier(state, settler._store, nothing, outcomes)
    settler.applier = applier if outcome == "applied" else None
    first = sent(state, 1)
    state.queues.forget_shard(first.shard)
    for subject in (first, sent(state, 2)):
        if outcome == "applied":
            applier.add(subject)
        elif outcome == "acknowledged":
            outcomes.deliver(subject)
        else:
            outcomes.fail(subject, Rejected("no"))
    await settler.settle_all()
    assert state.rows.busy_shards == set()
    assert (state.rows.shares.rows, len(state.rows.known)) == (0, 1)


async def test_a_message_that_is_applied_aside_does_not_outlast_its_shard() -> None:
    """Its transaction holds the row, which the next one is to delete."""
    state = RelayState(asyncio.get_running_loop().time)
    ends: list[str] = []

    class Slow(Tables):
        async def apply(
            self,
            _rows: Collection[RowId],
            calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
            *,
            is_aside: bool,
        ) -> bool:
            for call in calls:
                await call(None)  # type: ignore[arg-type]
            if len(ends) > 1:
                return True
            ends.append("began")
            if not is_aside:
                raise FunctionFailed(CallTimedOut(1.0))
            try:
                await anyio.sleep_forever()
            finally:
                ends.append("cut")

    outcomes, _ = parts_of(state, Slow())
    applier = Applier(state, Slow(), nothing, outcomes)  # type: ignore[arg-type]
    first = sent(state, 1)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            applier.begin(tasks.start_soon)
            applier.add(first)
            await applier.apply()
            while len(ends) < 2:
                await anyio.lowlevel.checkpoint()
            state.queues.forget_shard(first.shard)
            applier.add(sent(state, 2))
    assert ends == ["began", "began", "cut"]
    assert (applier.is_ready, state.changes.applying) == (True, 1)
    await applier.apply()
    assert applier.is_done
    assert state.rows.busy_shards == set()


@pytest.mark.parametrize("lasts", [True, False], ids=["drains", "is lost"])
@pytest.mark.parametrize("outcome", [Retry("not now"), Rejected("never")])
async def test_a_failure_is_settled_before_a_shard_that_drains_is_handed_over(
    outcome: Retry | Rejected, *, lasts: bool
) -> None:
    """The next owner must know it, or it sends the row again without a wait."""
    settled: list[str] = []

    class Notes(Tables):
        async def record(self, failures: Collection[Failure]) -> None:
            settled.extend(f"attempt {each.attempts} recorded" for each in failures)

        async def bury(self, letters: Collection[Letter]) -> None:
            settled.extend(f"buried after {each.attempts}" for each in letters)

    state = RelayState(asyncio.get_running_loop().time)
    outcomes, settler = parts_of(state, Notes(), last=lasts)
    subject = sent(state, 1)
    state.queues.forget_shard(subject.shard)
    outcomes.act_on(subject, outcome)
    busy = state.rows.busy_shards | state.changes.shards_to_record
    await settler.settle_all()
    known = "attempt 1 recorded" if isinstance(outcome, Retry) else "buried after 1"
    assert (settled, busy) == (([known], {0}) if lasts else ([], set()))
    assert state.rows.busy_shards | state.changes.shards_to_record == set()
    assert (state.rows.shares.rows, state.rows.in_flight) == (0, 0)


@pytest.mark.parametrize("lasts", [True, False], ids=["lasts", "ended for a moment"])
async def test_a_blocked_row_that_no_table_knows_is_tried_again(*, lasts: bool) -> None:
    """The shard is not given up meanwhile, so no other owner finds the row."""

    class Notes(Tables):
        async def record(self, failures: Collection[Failure]) -> None: ...

    state = RelayState(asyncio.get_running_loop().time)
    settings = TunedSettings(on_dead_letter="block")
    outcomes, settler = parts_of(state, Notes(), settings, last=lasts)
    subject = sent(state, 1)
    outcomes.act_on(subject, Rejected("never"))
    await settler.settle_all()
    due = state.retry_times.take_due(state.clock(), 10, 1_000)
    assert due == ([] if lasts else [subject])


async def test_messages_are_buried_while_others_keep_coming_to_be_applied() -> None:
    """Each transaction that applies messages brings another message."""
    state = RelayState(asyncio.get_running_loop().time)
    buried: list[int] = []

    class Stream(Tables):
        async def apply(
            self,
            _rows: Collection[RowId],
            _calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
            *,
            is_aside: bool,  # noqa: ARG002 - it costs no time here
        ) -> bool:
            await anyio.lowlevel.checkpoint()  # as a real statement is one
            applier.add(sent(state, 1, 10 + len(buried)))
            return True

        async def bury(self, _letters: object) -> None:
            buried.append(1)

    tables = Stream()
    outcomes, settler = parts_of(state, tables)
    applier = Applier(state, tables, nothing, outcomes)  # type: ignore[arg-type]
    settler.applier = applier
    applier.add(sent(state, 1, 9))
    for n in (1, 2):
        dead = sent(state, 1, n)
        outcomes.fail(dead, Rejected("no"))
        with anyio.fail_after(10):
            await settler.settle()
    assert (len(buried), state.changes.applying) == (2, 1)
