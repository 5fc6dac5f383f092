"""A failed row is tried again at its time, however many rows wait before it."""

import itertools
from collections.abc import Awaitable, Callable, Collection, Sequence

import anyio
import pytest
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import (
    Answering,
    MemoryOutbox,
    OneShard,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.outbox import Message
from dsql_outbox.outbox.database.connection import AsyncConnection
from dsql_outbox.publisher import Answer, Retry
from dsql_outbox.publisher.relay.applier import Nowhere
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.burial import Letter
from dsql_outbox.schema.outbox_rows import OutboxRow, RowId
from dsql_outbox.schema.session import FunctionFailed

BACKLOG = 6_000
BASE = 1.5
SETTINGS = TunedSettings(backoff_base=BASE, attempts=5)


def waits(times: Sequence[float]) -> list[float]:
    """Seconds from each attempt to the next one."""
    return [after - before for before, after in itertools.pairwise(times)]


def on_time(times: Sequence[float], late: float) -> bool:
    """Whether each attempt came after its wait, and no more than `late` seconds after it."""
    return all(BASE * 2**n <= wait <= BASE * 2**n + late for n, wait in enumerate(waits(times)))


def backlog(subjects: int, sick: Collection[int]) -> list[OutboxRow]:
    """The rows of some subjects, and among them the `sick` ones, which have one of their own."""
    rows = [row(f"sick-{n}", n) for n in sick]
    for n in range(subjects):
        mine = [each for each in range(n + 1, BACKLOG + 1, subjects) if each not in sick]
        rows += chain(f"c{n}", mine)
    return rows


class Model(MemoryOutbox):
    """An outbox whose transactions apply messages; those of `sick` always fail."""

    def __init__(self, sick: Collection[int]) -> None:
        super().__init__()
        self.sick = sick
        self.applied = 0
        self.attempts: dict[int, list[float]] = {number: [] for number in sick}
        self.buried: dict[int, int] = {}
        """How many others were applied by the time of a burial."""

    async def function(self, _connection: AsyncConnection, message: Message) -> None:
        """Apply a message."""
        number = message.event_id.int
        if number in self.sick:
            self.attempts[number].append(anyio.current_time())
            raise ValueError
        await anyio.sleep(0.008)

    async def apply(
        self,
        rows: Collection[RowId],
        calls: Sequence[Callable[[AsyncConnection], Awaitable[None]]],
        *,
        is_aside: bool,  # noqa: ARG002 - it costs no time here
    ) -> bool:
        """See `Store.apply`."""
        for call in calls:
            try:
                await call(None)  # type: ignore[arg-type]
            except ValueError as error:
                raise FunctionFailed(error) from error
        await self.delete(rows)
        self.applied += len(rows)
        return True

    async def bury(self, letters: Collection[Letter]) -> None:
        """See `Store.bury`."""
        await self.delete([each.row for each in letters])
        self.buried |= {each.row.position: self.applied for each in letters}


@pytest.mark.parametrize(
    ("subjects", "sick"), [(BACKLOG, [7]), (40, [90, 91, 92, 93, 94, 95, 4_000])]
)
def test_a_message_that_a_function_fails_is_given_up_beside_the_backlog(
    subjects: int, sick: list[int]
) -> None:
    """The backlog takes several times as long as its attempts."""
    store = Model(sick)
    store.insert(backlog(subjects, sick))

    async def run() -> None:
        relay = Relay(store, Nowhere(), SETTINGS, OneShard(), apply=store.function)  # type: ignore[arg-type]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.run)
            with anyio.fail_after(600):
                while store.rows:  # noqa: ASYNC110 - the time is virtual
                    await anyio.sleep(0.01)
            relay.stop()

    in_virtual_time(run())
    assert store.buried.keys() == {*sick}
    for number in sick:
        times = store.attempts[number]
        # The first attempt failed a batch, and the second one is made alone, right after it.
        assert times[1] - times[0] < 1.0
        assert on_time(times[1:], late=1.0), waits(times)


class Refusing(Answering):
    """A broker that answers slowly, and refuses the messages of `sick` at once."""

    def __init__(self, sick: Collection[int]) -> None:
        super().__init__(lambda _: 15.0)
        self.attempts: dict[int, list[float]] = {number: [] for number in sick}

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """See `Sink.publish`."""
        well: list[int] = []
        for index, message in enumerate(messages):
            if (number := message.event_id.int) in self.attempts:
                self.attempts[number].append(anyio.current_time())
                answer(index, Retry("no"))
            else:
                well.append(index)
        there = [messages[index] for index in well]
        await super().publish(there, lambda n, outcome: answer(well[n], outcome))


def test_a_message_that_a_slow_broker_refuses_is_given_up_beside_the_backlog() -> None:
    """All that the topic may have on its way, and in memory, is there before each attempt."""
    sick = [90, 91, 92, 93, 94, 95, 1_400]
    store, sink = Model(sick), Refusing(sick)
    store.insert(backlog(BACKLOG, sick))
    in_virtual_time(
        relay_until(store, sink, lambda: store.buried.keys() == {*sick}, settings=SETTINGS)
    )
    assert len(store.rows) > BACKLOG / 3
    for times in sink.attempts.values():
        assert on_time(times, late=1.0), waits(times)
