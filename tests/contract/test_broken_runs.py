"""The contract suite finds a sink that takes runs and breaks the promises for them."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest
from tests.support.brokers.broker_faults import memory_fails
from tests.support.brokers.readable_brokers import MemoryBroker

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered, NotAttempted, Outcome, Retry
from dsql_outbox.testing import MemorySink
from dsql_outbox.testing.sink_contract import SinkContract, Stage

pytestmark = pytest.mark.anyio


class _StoresAll(MemorySink):
    """Stores what is behind a message that failed; `tells` says whether it answers so."""

    def __init__(self, *, tells: bool) -> None:
        super().__init__()
        self._tells = tells

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        is_cut = False

        def take(index: int, _: int, outcome: Outcome) -> None:
            nonlocal is_cut
            is_told = not is_cut or self._tells
            is_cut |= outcome != Delivered()
            answer(index, outcome if is_told else NotAttempted())

        for index, message in enumerate(messages):
            await super().publish([message], partial(take, index))


class _Backwards(MemorySink):
    """Answers for the last message first."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        outcomes: list[Outcome] = []
        await super().publish(messages, lambda _, outcome: outcomes.append(outcome))
        for index in reversed(range(len(messages))):
            answer(index, outcomes[index])


@pytest.mark.parametrize("tells", [True, False])
async def test_a_sink_that_stores_behind_a_refusal_is_found(*, tells: bool) -> None:
    @asynccontextmanager
    async def open_stage(message: Message) -> AsyncGenerator[Stage]:
        async with memory_fails("refused", message) as stage:
            sink = _StoresAll(tells=tells)
            sink.fail(message.event_id, Retry("once"))
            stage.sink, stage.broker = sink, MemoryBroker(sink)
            yield stage

    check = SinkContract().test_a_run_stores_nothing_behind_a_message_that_failed
    with pytest.raises(AssertionError):
        await check(open_stage)


async def test_answers_of_a_run_that_come_backwards_are_found() -> None:
    with pytest.raises(AssertionError, match="message 1 of a run was Delivered"):
        await SinkContract().test_runs_arrive_in_order(MemoryBroker(_Backwards()), 20)
