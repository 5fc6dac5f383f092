"""A row goes before one that failed earlier, as after a crash before it was deleted."""

import itertools
from collections.abc import Sequence

import anyio
import pytest
from tests.support.publisher.given_rows import chain
from tests.support.publisher.virtual_relay import (
    Answering,
    MemoryOutbox,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, PublisherSettings, Retry, Unavailable
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.store import Failure, StoredFailure, SubjectName


class FailedLast(MemoryOutbox):
    """An outbox with rows of one subject, the last of which failed and waits."""

    def __init__(self, rows: int, seconds: float) -> None:
        super().__init__()
        self.insert(chain("a", list(range(1, rows + 1))))
        self._seconds = seconds
        self._failed = max(self.rows)
        self.failures_of = {self._failed: Failure(self._failed, "", 1, seconds)}

    async def stored_failures(self, shards: object) -> list[StoredFailure]:
        await super().stored_failures(shards)  # type: ignore[arg-type]
        return [StoredFailure(self._failed, SubjectName("Car", "a"), 1, self._seconds)]


class RefusingTopic(Answering):
    """A broker whose topic takes no message for a while."""

    def __init__(self, refusals: int) -> None:
        super().__init__(lambda _: 0.005)
        self._refusals = refusals

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if self._refusals:
            self._refusals -= 1
            for index in range(len(messages)):
                answer(index, Unavailable("the topic is full"))
        else:
            await super().publish(messages, answer)


@pytest.mark.parametrize("seconds", [100.0, float("inf")])
@pytest.mark.parametrize(("rows", "refusals"), [(2, 1), (2, 3), (4, 2)])
def test_a_topic_that_takes_no_messages_lets_no_failed_row_go_early(
    rows: int, refusals: int, seconds: float
) -> None:
    """The wait of the failed row, or its block, is not the wait of the topic."""
    store, sink = FailedLast(rows, seconds), RefusingTopic(refusals)
    is_over: list[bool] = []

    async def wait(_relay: Relay) -> None:
        await anyio.sleep(90)
        is_over.append(True)

    in_virtual_time(relay_until(store, sink, lambda: bool(is_over), beside=wait))
    positions = [message.headers["position"] for message in sink.delivered]
    assert positions == [str(n) for n in range(1, rows)]


class FailingFirst(Answering):
    """A broker that does not take the message of position 1 so many times."""

    def __init__(self, failures: int) -> None:
        super().__init__(lambda _: 0.005)
        self._left = failures
        self.attempts: list[tuple[float, int]] = []
        """The time and the number of each attempt to send that message."""

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        (message,) = messages
        if message.headers["position"] == "1":
            self.attempts.append((anyio.current_time(), message.attempt))
            if self._left:
                self._left -= 1
                answer(0, Retry("not now"))
                return
        await super().publish(messages, answer)


@pytest.mark.parametrize("failures", [1, 2, 4])
@pytest.mark.parametrize("rows", [2, 5])
def test_a_row_that_fails_before_one_that_failed_earlier_has_waits_and_attempts_of_its_own(
    rows: int, failures: int
) -> None:
    """It is the one that holds its subject back, whatever failed behind it."""
    store, sink = FailedLast(rows, 200.0), FailingFirst(failures)
    settings = PublisherSettings(backoff_base=3.0)
    in_virtual_time(relay_until(store, sink, lambda: not store.rows, settings=settings))
    times, numbers = zip(*sink.attempts, strict=True)
    assert numbers == (*range(1, failures + 2),)
    waits = [after - before for before, after in itertools.pairwise(times)]
    assert all(3.0 * 2**n <= wait < 3.0 * 2**n + 2 for n, wait in enumerate(waits))
    positions = [message.headers["position"] for message in sink.delivered]
    assert positions == [str(n) for n in range(1, rows + 1)]
