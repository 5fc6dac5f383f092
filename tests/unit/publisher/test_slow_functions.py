"""Messages on which a function hangs, or takes long, delay those of their subjects only."""

from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio
import pytest
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import MemoryOutbox, OneShard, in_virtual_time

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher.relay.applier import Nowhere
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.outbox_rows import RowId
from dsql_outbox.schema.session import (
    CALL_TIMEOUT,
    SHARED_CALL_TIMEOUT,
    CallTimedOut,
    FunctionFailed,
)

SICK_LENGTH = 3
FOREVER = 1e6


class Model(MemoryOutbox):
    """An outbox whose transactions apply messages. `slow` are seconds of calls by their rows."""

    def __init__(self, slow: dict[int, float]) -> None:
        super().__init__()
        self.slow = slow
        self.committed_at: dict[int, float] = {}
        self.running = self.most = self.calls = 0

    async def function(self, _connection: AsyncConnection, message: Message) -> None:
        """Apply a message."""
        self.calls += 1
        await anyio.sleep(self.slow.get(message.event_id.int, 0.0005))

    async def apply(
        self,
        rows: Collection[RowId],
        calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,
    ) -> bool:
        """See `Store.apply`."""
        seconds = CALL_TIMEOUT if is_aside else SHARED_CALL_TIMEOUT
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for call in calls:
                with anyio.move_on_after(seconds) as scope:
                    await call(None)  # type: ignore[arg-type]
                if scope.cancelled_caught:
                    raise FunctionFailed(CallTimedOut(seconds))
        finally:
            self.running -= 1
        await self.delete(rows)
        now = anyio.current_time()
        self.committed_at |= {int(each.event_id.replace("-", ""), 16): now for each in rows}
        return True


async def applied(store: Model, seconds: float, later: Sequence[int] = ()) -> None:
    """Apply for some seconds; a row of `later` comes every 0.1 s."""
    settings = TunedSettings(backoff_base=1.0)
    relay = Relay(store, Nowhere(), settings, OneShard(), apply=store.function)  # type: ignore[arg-type]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay.run)
        for number in later:
            await anyio.sleep(0.1)
            store.insert([row(f"late-{number}", number)])
        await anyio.sleep(seconds)
        relay.stop()


@pytest.mark.parametrize("sick", [1, 2, 3])
def test_calls_that_hang_delay_no_message_of_another_subject_by_more_than_their_first_second(
    sick: int,
) -> None:
    """With as many as are applied aside. Each hangs until its time is over, again and again."""
    hung = {n * SICK_LENGTH + 1: FOREVER for n in range(sick)}
    store = Model(hung)
    for n in range(sick):
        store.insert(chain(f"sick-{n}", range(n * SICK_LENGTH + 1, (n + 1) * SICK_LENGTH + 1)))
    healthy = range(100, 160)
    store.insert([row(f"healthy-{n}", n) for n in healthy])
    late = range(200, 380)
    in_virtual_time(applied(store, 5.0, late))
    seconds = sick * SHARED_CALL_TIMEOUT + 0.5
    assert all(store.committed_at[n] <= seconds for n in healthy)
    asked = [store.committed_at[n] - (n - late[0] + 1) * 0.1 for n in late]
    assert max(asked) <= seconds
    assert len(store.committed_at) == len(healthy) + len(late)
    assert store.most <= 1 + 3


def test_a_function_that_takes_long_for_each_message_applies_all_of_them() -> None:
    """Three seconds are more than a batch gives each message, and less than each has alone."""
    numbers = range(1, 41)
    store = Model(dict.fromkeys(numbers, 3.0))
    store.insert(chain("hot", numbers[:20]))
    store.insert([row(f"other-{n}", n) for n in numbers[20:]])
    in_virtual_time(applied(store, 100.0))
    assert sorted(store.committed_at) == [*numbers]
    hot = [store.committed_at[n] for n in numbers[:20]]
    assert hot == sorted(hot)
    assert store.calls <= 3 * len(numbers)


def test_more_hanging_calls_than_are_applied_aside_hold_no_batch_up() -> None:
    sick = range(1, 11)
    store = Model(dict.fromkeys(sick, FOREVER))
    store.insert([row(f"sick-{n}", n) for n in sick])
    store.insert([row(f"healthy-{n}", n) for n in range(100, 150)])
    in_virtual_time(applied(store, 60.0, range(200, 300)))
    assert set(store.committed_at) == {*range(100, 150), *range(200, 300)}
    assert store.most <= 1 + 3


def test_a_relay_that_is_cancelled_leaves_the_calls_that_hang_to_the_next_publisher() -> None:
    store = Model(dict.fromkeys(range(1, 6), FOREVER))
    store.insert([row(f"sick-{n}", n) for n in range(1, 6)])

    async def run() -> Relay:
        relay = Relay(store, Nowhere(), TunedSettings(), OneShard(), apply=store.function)  # type: ignore[arg-type]
        with anyio.move_on_after(7.5):
            await relay.run()
        return relay

    relay = in_virtual_time(run())
    assert (store.most, store.running, len(store.rows)) == (1 + 3, 0, 5)
    assert relay.busy_shards == set()
    assert relay.held == 0
