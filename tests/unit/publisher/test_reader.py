"""How much is read: less when the server runs out of memory, and more again later."""

import asyncio
from collections.abc import Mapping, Sequence

import psycopg
import pytest
from psycopg import errors

from dsql_outbox.publisher.relay.memory import scans
from dsql_outbox.publisher.relay.reader import Reader
from dsql_outbox.publisher.relay.state import RelayState
from dsql_outbox.publisher.relay.store import HEAD, PassedOver, Range, RangeRead, Reading
from dsql_outbox.publisher.tuned_settings import TunedSettings

pytestmark = pytest.mark.anyio

SETTINGS = TunedSettings(batch_rows=400, idle_max=0.001)


class ShortOfMemory:
    """Tables that can be read in small parts only, and later in large ones."""

    def __init__(self, most: int, error: type[psycopg.Error]) -> None:
        self.most = most
        self.error = error
        self.asked: list[int] = []
        self.answered = asyncio.Event()
        self.answered_all = asyncio.Event()

    async def read(self, ranges: Sequence[Range], _passed: PassedOver) -> Reading:
        rows = sum(each.rows for each in ranges)
        self.asked.append(rows)
        if rows > self.most:
            raise self.error("more than the server has")
        self.answered.set()
        if rows == SETTINGS.batch_rows:
            self.answered_all.set()
        return Reading(1, [RangeRead([], HEAD, is_cut=False) for _ in ranges])

    async def stored_failures(self, _shards: object) -> list[object]:
        return []

    async def paused_topics(self) -> Mapping[str, str]:
        return {}


class OneShard:
    """The lease of one shard."""

    def usable(self) -> Mapping[int, int]:
        return {0: 1}


@pytest.mark.parametrize("error", [errors.OutOfMemory, errors.ProgramLimitExceeded])
async def test_a_server_without_memory_is_asked_for_half_of_the_rows_until_it_answers(
    error: type[psycopg.Error], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the documents Aurora DSQL answers 53200 then, and it was seen to answer 54000."""
    monkeypatch.setattr(scans, "_REST", 0.001)
    store = ShortOfMemory(60, error)
    state = RelayState(asyncio.get_running_loop().time)
    reader = Reader(state, store, OneShard(), SETTINGS)  # type: ignore[arg-type]
    running = asyncio.create_task(reader.run())
    await store.answered.wait()
    assert store.asked[:4] == [400, 200, 100, 50]
    store.most = 10_000
    await store.answered_all.wait()
    state.stop()
    await running


class FullOfDeletedRows(ShortOfMemory):
    """Tables where it takes long to pass over what is at the head of a shard."""

    def __init__(self) -> None:
        super().__init__(10_000, errors.OutOfMemory)
        self.heads: list[int] = []
        self.tails: list[int] = []

    async def read(self, ranges: Sequence[Range], _passed: PassedOver) -> Reading:
        heads = [each for each in ranges if each.after == HEAD]
        self.heads.append(len(heads))
        self.tails.append(len({each.shard for each in ranges if each.after > HEAD}))
        if len(self.heads) > 40:
            self.answered_all.set()
        found = [RangeRead([], each.after, is_cut=False) for each in ranges]
        took = 0.05 * len(heads) if len(self.heads) > 1 else 0.0  # the first says what is usual
        return Reading(1_700_000_000_000_000, found, took)


class FourShards(OneShard):
    """The leases of four shards."""

    def usable(self) -> Mapping[int, int]:
        return dict.fromkeys(range(4), 1)


async def test_new_rows_wait_for_the_slow_sweep_of_one_shard_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each read also asks for the new rows of all shards, once a sweep has been slow."""
    monkeypatch.setattr(scans, "_REST", 0.001)
    monkeypatch.setattr(scans, "_LONGEST", 0.001)
    store = FullOfDeletedRows()
    state = RelayState(asyncio.get_running_loop().time)
    reader = Reader(state, store, FourShards(), SETTINGS)  # type: ignore[arg-type]
    running = asyncio.create_task(reader.run())
    await store.answered_all.wait()
    state.stop()
    await running
    slow = [n for n, heads in enumerate(store.heads) if heads == 4][1]  # the first is usual
    assert max(store.heads[slow + 1 :]) == 1
    assert min(store.tails[slow + 1 :]) == 4
