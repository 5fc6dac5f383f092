"""A topic that takes messages again: all of its rows follow at once, beside what else is read."""

import math
from collections.abc import Sequence

import anyio
import pytest
from tests.support.publisher.given_rows import row
from tests.support.publisher.virtual_relay import MemoryOutbox, in_virtual_time, relay_until

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered, Unavailable
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.store import PassedOver, Range, Reading

BACK, OTHERS = 600, 4_000

NEW = 4_000_000_000
"""A position behind all rows, where the tail is."""


class SlowOutbox(MemoryOutbox):
    """Its reads last for 50 ms; `is_sweeping` says that one of older rows is on its way.

    `tried_at` is when a topic was tried first: when its row was asked for by its key.
    """

    is_sweeping = False
    tried_at = math.inf

    async def read(self, ranges: Sequence[Range], passed: PassedOver) -> Reading:
        self.is_sweeping = any(each.rows > 1 and each.after.position < NEW for each in ranges)
        if any(each.rows == 1 for each in ranges):
            self.tried_at = min(self.tried_at, anyio.current_time())
        reading = await super().read(ranges, passed)  # its snapshot is that of the beginning
        await anyio.sleep(0.05)
        self.is_sweeping = False
        return reading


class Stream:
    """Refuses the topic ``back`` until it `takes` it; `times` has when it got each message."""

    system = "memory"

    def __init__(self, store: SlowOutbox, *, in_sweep: bool) -> None:
        self._store = store
        self._in_sweep = in_sweep
        self.takes = False
        self.times: list[float] = []

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await anyio.sleep(0.005)
        waits = self.takes and self._in_sweep and not self.times
        while waits and not self._store.is_sweeping:  # noqa: ASYNC110 - the time is virtual
            await anyio.sleep(0.001)
        for index, message in enumerate(messages):
            if message.topic == "other":
                answer(index, Delivered())
            elif self.takes:
                self.times.append(anyio.current_time())
                answer(index, Delivered())
            else:
                answer(index, Unavailable("no stream takes it"))


def backlogs() -> SlowOutbox:
    store = SlowOutbox()
    store.insert([row(f"a{n}", n, topic="back") for n in range(1, BACK + 1)])
    store.insert([row(f"b{n}", 10_000 + n, topic="other") for n in range(OTHERS)])
    return store


@pytest.mark.parametrize("in_sweep", [True, False])
def test_a_topic_goes_on_at_once_whatever_is_read_when_its_answer_comes(in_sweep: bool) -> None:
    store = backlogs()
    stream = Stream(store, in_sweep=in_sweep)

    async def come_back(_: Relay) -> None:
        await anyio.sleep(6.5)
        stream.takes = True

    in_virtual_time(
        relay_until(store, stream, lambda: len(stream.times) == BACK, beside=come_back), now=5e3
    )
    assert stream.times[-1] - stream.times[0] < 0.9, "a sweep rests for a second, at least"


def test_a_topic_goes_on_at_once_when_the_row_to_try_it_with_is_gone() -> None:
    store = backlogs()
    stream = Stream(store, in_sweep=False)

    async def drop_the_first(_: Relay) -> None:
        await anyio.sleep(2.5)
        await store.delete([min(store.rows)])
        stream.takes = True

    in_virtual_time(
        relay_until(store, stream, lambda: len(stream.times) == BACK - 1, beside=drop_the_first),
        now=5e3,
    )
    assert stream.times[-1] - store.tried_at < 0.9, "a sweep rests for a second, at least"
