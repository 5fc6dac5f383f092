"""Many failed rows: an operator's changes are noticed, without reading all of them again."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise

import anyio
import pytest
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import (
    Answering,
    MemoryOutbox,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered, PublisherSettings, Retry
from dsql_outbox.publisher.relay import reader
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.store import (
    Failure,
    PassedOver,
    Range,
    Reading,
    StoredFailure,
    StoredWait,
    SubjectName,
)
from dsql_outbox.schema.outbox_rows import RowId

FAILED = 5_000


class Blocked(MemoryOutbox):
    """An outbox whose rows all failed, and wait for long."""

    def __init__(self) -> None:
        super().__init__()
        self.insert([row(str(n), n) for n in range(1, FAILED + 1)])
        self.failures_of = {row: Failure(row, "", 1, 1e6) for row in self.rows}

    async def stored_failures(self, shards: object) -> list[StoredFailure]:
        await super().stored_failures(shards)  # type: ignore[arg-type]
        return [
            StoredFailure(row, SubjectName("Car", self.rows[row].subject_id), 1, 1e6)
            for row in self.failures_of
        ]


def test_failures_are_read_together_only_once_and_a_change_is_noticed() -> None:
    store, sink = Blocked(), Answering(lambda _: 0.005)
    looks: list[int] = []

    async def operate(_relay: Relay) -> None:
        await anyio.sleep(31)
        looks.extend(store.asked_waits)
        del store.failures_of[next(key for key in store.failures_of if key.position == 4_321)]

    in_virtual_time(relay_until(store, sink, lambda: bool(sink.delivered), beside=operate))
    assert store.statements["failures"] == 1
    assert max(looks) <= FAILED / 5
    assert sum(looks) <= FAILED * 4
    assert [message.headers["position"] for message in sink.delivered] == ["4321"]


class Timed(MemoryOutbox):
    """An outbox that keeps the time of each failed row, as the tables do."""

    def __init__(self) -> None:
        super().__init__()
        self.retry_at: dict[RowId, float] = {}
        self.before_read: Callable[[], None] = lambda: None

    async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
        self.before_read()
        return await super().read(ranges, passed)

    async def record(self, failures: Collection[Failure]) -> None:
        await super().record(failures)
        now = asyncio.get_running_loop().time()
        self.retry_at |= {each.row: now + (each.seconds or 0.0) for each in failures}

    async def stored_failures(self, _shards: object) -> list[StoredFailure]:
        await self._statement("failures")
        now = asyncio.get_running_loop().time()
        return [
            StoredFailure(
                row,
                SubjectName("Car", self.rows[row].subject_id),
                failure.attempts,
                self.retry_at[row] - now,
            )
            for row, failure in self.failures_of.items()
        ][: reader.MAX_FAILURES]

    async def stored_waits(self, rows: Collection[RowId]) -> Mapping[RowId, StoredWait]:
        await self._statement("waits")
        now, known = asyncio.get_running_loop().time(), self.failures_of
        return {
            row: StoredWait(known[row].attempts, self.retry_at[row] - now)
            for row in rows
            if row in known
        }


class FailingTwice:
    """A sink that fails the first row of each subject but a healthy one, twice."""

    system = "memory"

    def __init__(self) -> None:
        self.tries: defaultdict[str, list[float]] = defaultdict(list)
        self.delivered: list[tuple[str, int]] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await anyio.sleep(0.005)
        for index, message in enumerate(messages):
            subject, position = message.key.rpartition("/")[2], int(message.headers["position"])
            self.tries[f"{subject} {position}"].append(asyncio.get_running_loop().time())
            is_first = position <= SICK and subject != "healthy"
            if is_first and len(self.tries[f"{subject} {position}"]) <= 2:
                answer(index, Retry("no"))
            else:
                self.delivered.append((subject, position))
                answer(index, Delivered())


SICK, MOST = 600, 100


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_failures_beyond_the_limit_leave_the_memory_and_keep_their_times_and_their_order(
    monkeypatch: pytest.MonkeyPatch, is_taken_over: bool
) -> None:
    """Those of the first rows of 600 subjects, of which memory has room for 100."""
    monkeypatch.setattr(reader, "MAX_SUBJECTS", MOST)
    monkeypatch.setattr(reader, "MAX_FAILURES", MOST)
    store, sink = Timed(), FailingTwice()
    store.insert([each for n in range(1, SICK + 1) for each in chain(str(n), [n, SICK + n])])
    if is_taken_over:
        store.failures_of = {
            key: Failure(key, "", 1, 30.0) for key in store.rows if key.position <= SICK
        }
        store.retry_at = dict.fromkeys(store.failures_of, 30.0)
    most: list[int] = []
    healthy: list[float] = []

    async def operate(relay: Relay) -> None:
        def look() -> None:
            shards = relay._state.shards.values()
            most.append(sum(s.can_be_forgotten for each in shards for s in each.subjects.values()))

        store.before_read = look
        for n in range(100):
            began = anyio.current_time()
            position = 2 * SICK + 1 + n
            store.insert([row("healthy", position, previous=0)])
            while ("healthy", position) not in sink.delivered:  # noqa: ASYNC110 - virtual time
                await anyio.sleep(0.05)
            healthy.append(anyio.current_time() - began)

    done = 2 * SICK + 100
    in_virtual_time(relay_until(store, sink, lambda: len(sink.delivered) >= done, beside=operate))
    assert len(sink.delivered) == len(set(sink.delivered)) == done
    of: dict[str, list[int]] = {}
    for subject, position in sink.delivered:
        of.setdefault(subject, []).append(position)
    assert all(found == sorted(found) for found in of.values())
    waits = PublisherSettings()
    for tries in sink.tries.values():
        for number, (one, other) in enumerate(pairwise(tries), start=1):
            assert other - one >= waits.backoff_base * 0.4 * number
    assert MOST / 2 < max(most) <= MOST  # before a read; a statement or a read may bring more
    assert max(healthy) < 5
