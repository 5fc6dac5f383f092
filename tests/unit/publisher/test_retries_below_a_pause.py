"""Failed rows of a topic that takes no messages for a while are tried as soon as it does."""

from collections.abc import Sequence

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
from dsql_outbox.publisher import Answer, Outcome, PublisherSettings, Retry, Unavailable

FAILED = 5


class Topics(Answering):
    """A broker of two topics. ``t`` is away for a time, and ``other`` for good.

    It refuses the first message of each hot subject once or twice.
    """

    def __init__(self, away: tuple[float, float]) -> None:
        super().__init__(lambda _: 0.005)
        self._away = away
        self._failures = {f"Car/hot-{n}": 1 + n % 2 for n in range(FAILED)}
        self.arrived: dict[str, float] = {}

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        took: list[int] = []
        for index, message in enumerate(messages):
            if (refusal := self._refusal(message)) is not None:
                answer(index, refusal)
            else:
                took.append(index)
        await super().publish(
            [messages[index] for index in took], lambda n, outcome: answer(took[n], outcome)
        )
        now = anyio.current_time()
        for index in took:
            self.arrived.setdefault(messages[index].key, now)

    def _refusal(self, message: Message) -> Outcome | None:
        begin, end = self._away
        if message.topic == "other" or begin <= anyio.current_time() < end:
            return Unavailable("the topic is away")
        if self._failures.get(message.key, 0):
            self._failures[message.key] -= 1
            return Retry("not now")
        return None


@pytest.mark.parametrize("ends", [3.0, 9.0, 23.5, 71.0])
def test_what_failed_is_due_when_its_topic_works_again(ends: float) -> None:
    store, sink = MemoryOutbox(), Topics((0.5, ends))
    store.insert([each for n in range(FAILED) for each in chain(f"hot-{n}", [n + 1, 100 + n])])
    store.insert([row("other", 300, topic="other")])

    async def write_later(_: object) -> None:
        await anyio.sleep(1.5)
        store.insert([row(f"healthy-{n}", 400 + n) for n in range(60)])

    settings = PublisherSettings(backoff_base=1.0)
    done = lambda: len(store.rows) == 1  # noqa: E731 - of the other topic
    in_virtual_time(relay_until(store, sink, done, settings=settings, beside=write_later))
    hot = [sink.arrived[f"Car/hot-{n}"] for n in range(FAILED)]
    first = min(at for key, at in sink.arrived.items() if "healthy" in key)
    # The wait of the second attempt may begin only then.
    assert max(hot) <= first + 2.5, (hot, first)
