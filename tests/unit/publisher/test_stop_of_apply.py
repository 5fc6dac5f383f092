"""A stop gives the messages that wait to be applied the time of `drain`."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio
import psycopg
import pytest
from tests.support.publisher.given_rows import row
from tests.support.publisher.virtual_relay import MemoryOutbox, OneShard, in_virtual_time

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher.relay.applier import Nowhere
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.outbox_rows import RowId

GROWN = 127
"""Messages after which the slow batches have become batches of one."""


class ApplyingOutbox(MemoryOutbox):
    """An outbox that notes when a transaction began that committed no row."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = 0
        self.fails_from = 0
        """With so many rows or fewer, each transaction fails at once."""

    async def apply(
        self,
        rows: Collection[RowId],
        calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,  # noqa: ARG002 - it costs no time here
    ) -> bool:
        """See `Store.apply`."""
        if len(self.rows) <= self.fails_from:
            raise psycopg.OperationalError("no connection")
        try:
            for call in calls:
                await call(None)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            self.cut += 1
            raise
        await self.delete(rows)
        return True


async def stopped(store: ApplyingOutbox, each: float, drain: float) -> float:
    """Stop when batches are of one message. Returns the seconds until the relay ended."""

    async def function(_connection: AsyncConnection, _message: Message) -> None:
        await anyio.sleep(each)

    settings = TunedSettings(drain=drain)
    relay = Relay(store, Nowhere(), settings, OneShard(), apply=function)  # type: ignore[arg-type]
    total = len(store.rows)
    with anyio.fail_after(600):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.run)
            while total - len(store.rows) < GROWN:  # noqa: ASYNC110 - the time is virtual
                await anyio.sleep(0.01)
            relay.stop()
            began = anyio.current_time()
    return anyio.current_time() - began


@pytest.mark.parametrize(
    ("each", "drain", "waiting", "left"),
    [(1.1, 20.0, 12, 0), (1.1, 20.0, 33, 15), (2.0, 60.0, 29, 0), (1.1, 3.0, 30, 28)],
)
def test_messages_are_applied_for_the_time_of_drain_and_no_longer(
    each: float, drain: float, waiting: int, left: int
) -> None:
    store = ApplyingOutbox()
    store.insert([row(str(n), n) for n in range(1, GROWN + waiting + 1)])
    seconds = in_virtual_time(stopped(store, each, drain))
    assert len(store.rows) == left
    assert store.cut == bool(left)
    assert seconds <= drain + 0.1


@pytest.mark.parametrize("drain", [3.0, 20.0])
def test_a_database_that_fails_at_once_does_not_outlast_the_drain(drain: float) -> None:
    store = ApplyingOutbox()
    store.insert([row(str(n), n) for n in range(1, GROWN + 31)])
    store.fails_from = 30
    seconds = in_virtual_time(stopped(store, 1.1, drain))
    assert len(store.rows) == 30
    assert seconds <= drain + TunedSettings().longest_idle + 0.1
