"""Very many topics that the broker refuses: they are tried seldom, and others go on."""

from collections import Counter
from collections.abc import Sequence

import anyio
import pytest
from tests.support.publisher.given_rows import row
from tests.support.publisher.virtual_relay import MemoryOutbox, in_virtual_time, relay_until

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Delivered, PublisherSettings, Retry, Unavailable
from dsql_outbox.publisher.relay.memory.topics import MAX_TRIED, TopicPauses
from dsql_outbox.publisher.relay.relay import Relay

BAD = 800


class Stream:
    """Takes the topic ``good`` only, and others once they are `known`; counts what it refuses."""

    system = "memory"

    def __init__(self) -> None:
        self.known = {"good"}
        self.delivered: list[str] = []
        self.refused = Counter[str]()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await anyio.sleep(0.005)
        for index, message in enumerate(messages):
            if message.topic in self.known:
                self.delivered.append(message.topic)
                answer(index, Delivered())
            else:
                self.refused[message.topic] += 1
                answer(index, Unavailable("no stream takes it"))

    async def all_refused(self) -> None:
        """Wait until each bad topic was refused."""
        while len(self.refused) < BAD:  # noqa: ASYNC110 - the time is virtual
            await anyio.sleep(0.1)


def refused_topics(number: int) -> MemoryOutbox:
    store = MemoryOutbox()
    store.insert([row(f"bad-{n}", n, topic=f"bad.{n}") for n in range(1, number + 1)])
    return store


def test_topics_that_nobody_takes_are_tried_seldom_and_another_one_goes_on() -> None:
    store, stream = refused_topics(BAD), Stream()
    sent: list[float] = []

    async def write(_: Relay) -> None:
        """A good message each second, after each bad topic was refused."""
        await stream.all_refused()
        for n in range(30):
            began = anyio.current_time()
            store.insert([row(f"good-{n}", 1_000_000_000 + n, topic="good")])
            while len(stream.delivered) <= n:  # noqa: ASYNC110 - the time is virtual
                await anyio.sleep(0.01)
            sent.append(anyio.current_time() - began)
            await anyio.sleep(1)

    in_virtual_time(relay_until(store, stream, lambda: len(sent) == 30, beside=write), now=5_000.0)

    again = stream.refused.total() - BAD
    assert 0 < again <= 30 / 5 * 2 * MAX_TRIED, "each of them once in five seconds were 4,800"
    assert max(sent) < 2.5, "as without the bad topics: a second between two reads"


def test_very_many_topics_that_are_taken_again_are_delivered_in_the_end() -> None:
    store, stream = refused_topics(BAD), Stream()

    async def come_back(_: Relay) -> None:
        await stream.all_refused()
        stream.known |= stream.refused.keys()

    in_virtual_time(
        relay_until(store, stream, lambda: len(stream.delivered) == BAD, beside=come_back),
        now=5_000.0,
    )


def test_a_topic_goes_on_although_the_row_to_try_it_with_was_dropped() -> None:
    """As by an operator, while the topic is paused."""
    store, stream = MemoryOutbox(), Stream()
    store.insert([first := row("a", 1, topic="bad"), row("b", 2, topic="bad")])

    async def drop(_: Relay) -> None:
        while not stream.refused:  # noqa: ASYNC110 - the time is virtual
            await anyio.sleep(0.1)
        await store.delete([first.id])
        stream.known.add("bad")

    in_virtual_time(
        relay_until(store, stream, lambda: len(stream.delivered) == 1, beside=drop), now=5_000.0
    )


@pytest.mark.parametrize("topics", [1, 7])
def test_a_topic_that_works_and_fails_by_turns_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, topics: int
) -> None:
    """As one that is deleted under load: refused, a report about a message, refused."""
    store, tries = MemoryOutbox(), Counter[str]()

    class Wavering(Stream):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            await anyio.sleep(0.005)
            for index, message in enumerate(messages):
                tries[message.topic] += 1
                is_odd = tries[message.topic] % 2
                answer(index, Unavailable("no topic") if is_odd else Retry("destroyed"))

    store.insert(
        [row(f"t{n}-{k}", 10 * n + k + 1, topic=f"t{n}") for n in range(topics) for k in range(9)]
    )
    monkeypatch.setattr(TopicPauses, "PAUSE", 0.2)
    in_virtual_time(
        relay_until(store, Wavering(), lambda: min(tries.values(), default=0) > 20),
        now=5_000.0,
    )
    lines = Counter(r.getMessage() for r in caplog.records if "takes no messages" in r.getMessage())
    assert lines == {f"Topic t{n} takes no messages now: no topic": 1 for n in range(topics)}


@pytest.mark.parametrize("topics", [1, 130])
@pytest.mark.parametrize("outcome", [Unavailable("no stream"), Retry("full")], ids=str)
@pytest.mark.parametrize(("written", "ends"), [(None, 42), (30, 72)])
def test_a_stall_lasts_until_a_message_leaves_whatever_is_tried_in_vain(
    outcome: Unavailable | Retry, topics: int, written: float | None, ends: float
) -> None:
    """Else `max_wait` had no effect if it is longer than the time between two tries."""
    store, stream, tries = refused_topics(topics), Stream(), Counter[str]()

    async def publish(messages: Sequence[Message], answer: Answer, /) -> None:
        await anyio.sleep(0.005)
        for index, message in enumerate(messages):
            tries[message.topic] += 1
            answer(index, Delivered() if message.topic in stream.known else outcome)

    stream.publish = publish  # type: ignore[method-assign]
    relays: list[Relay] = []

    async def write(relay: Relay) -> None:
        relays.append(relay)
        if written is not None:
            await anyio.sleep(written)
            store.insert([row("good", 1_000_000_000, topic="good")])

    def has_stalled() -> bool:
        return bool(relays) and (relays[0].stalled_for or 0.0) >= 42

    seconds = in_virtual_time(
        relay_until(
            store, stream, has_stalled, settings=PublisherSettings(backoff_cap=3.0), beside=write
        ),
        now=5_000.0,
    )

    assert ends <= seconds < ends + 10
    assert tries.total() > 3 * topics, "they were tried"
