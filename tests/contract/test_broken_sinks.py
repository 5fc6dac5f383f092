"""The contract suite finds sinks that break the promises."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import anyio.lowlevel
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


class _AnswersLate(MemorySink):
    """Waits, and answers when nobody takes it any more; its client swallows errors."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        def tell() -> None:
            with suppress(AssertionError):
                answer(0, Delivered())

        if messages[0].key.startswith("Cut/"):
            try:
                await anyio.sleep_forever()
            finally:
                asyncio.get_running_loop().call_soon(tell)
        await super().publish(messages, answer)


class _LeavesAnError(MemorySink):
    """Fails in a callback after its call was cancelled."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if messages[0].key.startswith("Cut/"):
            asyncio.get_running_loop().call_soon(lambda: 1 // 0)
            await anyio.sleep_forever()
        await super().publish(messages, answer)


class _MixesTasks(MemorySink):
    """Takes one call at a time, and says so to the messages of the others."""

    is_busy = False

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if self.is_busy:
            await super().publish(messages, lambda index, _: answer(index, Retry("busy")))
            return
        self.is_busy = True
        await anyio.lowlevel.checkpoint()
        await super().publish(messages, answer)
        self.is_busy = False


class _RaisesAtNames(MemorySink):
    """Fails as a client of HTTP does at a line feed in the name of a header."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if any("\n" in name for message in messages for name in message.headers):
            raise ValueError("line feed")
        await super().publish(messages, answer)


@pytest.mark.parametrize(
    ("sink", "check", "told"),
    [
        (_AnswersLate(), "a_call_that_was_cancelled_answers_nothing_more", "answered after"),
        (_LeavesAnError(), "a_call_that_was_cancelled_answers_nothing_more", "nobody awaits"),
        (_MixesTasks(), "several_tasks_may_publish_at_once", "Retry"),
    ],
)
async def test_a_sink_that_answers_wrong_is_found(sink: MemorySink, check: str, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        await getattr(SinkContract(), f"test_{check}")(MemoryBroker(sink))


async def test_a_sink_that_raises_at_a_header_name_is_found() -> None:
    check = SinkContract().test_a_header_that_the_broker_lacks_harms_no_other_message
    with pytest.raises(ValueError, match="line feed"):
        await check(MemoryBroker(_RaisesAtNames()))


class _DropsNames(MemorySink):
    """Says of messages with an odd name that they were stored, and loses them."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        kept = [message for message in messages if all(map(str.isalnum, message.headers))]
        await super().publish(kept, lambda _, __: None)
        for index in range(len(messages)):
            answer(index, Delivered())


async def test_a_sink_that_loses_what_it_says_it_stored_is_found() -> None:
    check = SinkContract().test_a_header_that_the_broker_lacks_harms_no_other_message
    with pytest.raises(AssertionError):
        await check(MemoryBroker(_DropsNames()))


class _Talks(MemorySink):
    """A server in this process that logs each request."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        logging.getLogger("acme.server").info("a request")
        await super().publish(messages, answer)


async def test_a_log_line_of_a_request_is_no_late_answer_and_the_loop_stays_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = asyncio.get_running_loop().get_exception_handler()
    caplog.set_level(logging.INFO)
    await SinkContract().test_a_call_that_was_cancelled_answers_nothing_more(MemoryBroker(_Talks()))
    assert "a request" in caplog.messages
    assert asyncio.get_running_loop().get_exception_handler() == before
