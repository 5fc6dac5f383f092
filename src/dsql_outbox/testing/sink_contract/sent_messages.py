"""Send messages as the relay does, and hold a sink to the rules for its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

import anyio
import pytest

from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Delivered, NotAttempted, Outcome, Sink, keeps_prefix

NOT_ATTEMPTED = NotAttempted()


def new_message(
    key: str = "Loan/1",
    payload: bytes = b'{"n":1}',
    topic: str = "events.LoanCreated",
    **headers: str,
) -> Message:
    """A message with an id of its own."""
    event_id = uuid4()
    attributes = {
        "specversion": "1.0",
        "id": str(event_id),
        "source": "/tests",
        "type": "LoanCreated",
        "datacontenttype": "application/json",
        "subject": key,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    return Message(event_id, topic, key, attributes | headers, payload, str(event_id), 0, 0)


class Answers:
    """The answers of one call; it holds the sink to the rules of the port."""

    def __init__(self, size: int) -> None:
        self.outcomes: list[Outcome] = [NOT_ATTEMPTED] * size
        self.order: list[int] = []
        """The messages that were answered, in the order of their answers."""
        self.late: list[int] = []
        """The messages that were answered after the call."""
        self._came = anyio.Event()
        self._missing = set(range(size))
        self._is_over = False

    def __call__(self, index: int, outcome: Outcome) -> None:
        """Take an answer: at most one per message, and none after the call."""
        if self._is_over:
            self.late.append(index)  # the sink may swallow the error
        assert not self._is_over, f"an answer for {index} after the call"
        self._missing.remove(index)
        self.outcomes[index] = outcome
        self.order.append(index)
        self._came.set()

    async def next(self) -> None:
        """Wait for the next answer."""
        self._came = anyio.Event()
        await self._came.wait()

    def end(self) -> None:
        """Take no more answers: the call is over."""
        self._is_over = True


async def published(sink: Sink, messages: Sequence[Message]) -> list[Outcome]:
    """Publish in one call; a message without an answer is `NotAttempted`.

    Messages of one key side by side are a run, and their answers are held to its rules.
    """
    answers = Answers(len(messages))
    try:
        await sink.publish(messages, answers)
    finally:
        answers.end()
    _check_runs(messages, answers)
    return answers.outcomes


def _check_runs(messages: Sequence[Message], answers: Answers) -> None:
    """Check that `Delivered` came in the order of each run, and never behind another outcome."""
    told = {index: number for number, index in enumerate(answers.order)}
    for index in range(1, len(messages)):
        before = index - 1
        if messages[index].key == messages[before].key and answers.outcomes[index] == Delivered():
            is_next = answers.outcomes[before] == Delivered() and told[before] < told[index]
            assert is_next, f"message {index} of a run was Delivered, and not the one before it"


async def deliver_runs(sink: Sink, run: Sequence[Message]) -> None:
    """Publish a run as the relay does, from its first message without success, until it is there.

    Fails after 10 seconds.
    """
    rest = list(run)
    with anyio.fail_after(10):
        while rest:
            try:
                outcomes = await published(sink, rest)
            except SinkUnavailable:
                outcomes = []
            del rest[: outcomes.count(Delivered())]
            await anyio.sleep(0.01 if rest else 0)


def skip_without_runs(sink: Sink) -> None:
    """Skip the test of a sink that takes no runs."""
    if not keeps_prefix(sink):
        pytest.skip("the sink takes no runs")


@dataclass
class Sent:
    """The outcomes of messages, and the error if the sink was unavailable."""

    outcomes: list[Outcome]
    unavailable: SinkUnavailable | None = None


async def in_order(sink: Sink, messages: Sequence[Message]) -> Sent:
    """Publish as the relay does: of a key, the next message after the one before was delivered."""
    sent = Sent([NOT_ATTEMPTED] * len(messages))
    waiting: dict[str, list[int]] = {}
    for index, message in enumerate(messages):
        waiting.setdefault(message.key, []).append(index)
    while waiting:
        first = [indexes.pop(0) for indexes in waiting.values()]
        answers = Answers(len(first))
        try:
            await sink.publish([messages[index] for index in first], answers)
        except SinkUnavailable as error:
            sent.unavailable = error
        answers.end()
        for index, outcome in zip(first, answers.outcomes, strict=True):
            sent.outcomes[index] = outcome
            if outcome != Delivered() or not waiting[messages[index].key]:
                del waiting[messages[index].key]
    return sent


async def deliver(sink: Sink, messages: Sequence[Message]) -> None:
    """Publish until all is delivered; fails after 10 seconds."""
    rest = list(messages)
    with anyio.fail_after(10):
        while rest:
            outcomes = (await in_order(sink, rest)).outcomes
            found = zip(rest, outcomes, strict=True)
            rest = [message for message, outcome in found if outcome != Delivered()]
            await anyio.sleep(0.01 if rest else 0)
