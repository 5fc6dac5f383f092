"""Messages that are not at fault, and that the broker cannot take now: their queue is full."""

from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any, Final

import anyio
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import MemoryOutbox, in_virtual_time, relay_until

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Answer, Deferred, Delivered, PublisherSettings
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.publisher.relay.relay import Relay

FEW: Final = PublisherSettings(attempts=2)
"""So that a counted attempt would soon be a dead letter."""


class Queues:
    """A topic with two queues, for even and for odd subjects; those that are `full` defer."""

    system = "memory"

    def __init__(self, *full: int) -> None:
        self.full = set(full)
        self.tries: defaultdict[str, list[float]] = defaultdict(list)
        """The times at which messages of a subject were deferred."""
        self.delivered: dict[str, list[str]] = {}
        self.attempts = Counter[int]()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await anyio.sleep(0.005)
        for index, message in enumerate(messages):
            subject = message.key.removeprefix("Car/")
            self.attempts[message.attempt] += 1
            if int(subject) % 2 in self.full:
                self.tries[subject].append(anyio.current_time())
                answer(index, Deferred("a queue is full"))
            else:
                self.delivered.setdefault(subject, []).append(str(message.event_id))
                answer(index, Delivered())

    async def all_tried(self, number: int) -> None:
        """Wait until so many subjects were deferred."""
        while len(self.tries) < number:  # noqa: ASYNC110 - the time is virtual
            await anyio.sleep(0.01)


def run(
    store: MemoryOutbox, queues: Queues, work: Callable[[Relay], Coroutine[Any, Any, None]]
) -> None:
    """Relay until the work has ended and the outbox is empty; no attempt may count."""
    is_over = False

    async def beside(relay: Relay) -> None:
        nonlocal is_over
        await work(relay)
        is_over = True

    until = relay_until(
        store, queues, lambda: is_over and not store.rows, settings=FEW, beside=beside
    )
    in_virtual_time(until, now=5_000.0)
    assert queues.attempts.keys() == {1}
    assert not store.letters
    assert not store.statements["record"]
    assert not store.statements["forget"]


def test_only_the_subjects_of_a_full_queue_wait_and_each_with_its_backoff() -> None:
    store, queues = MemoryOutbox(), Queues(0)
    store.insert([each for n in range(40) for each in chain(str(n), [n + 1, n + 101, n + 201])])
    late: list[float] = []
    paused: list[str] = []

    async def write(relay: Relay) -> None:
        await queues.all_tried(20)
        for n in range(41, 101, 2):
            began = anyio.current_time()
            store.insert([row(str(n), 1_000 + n)])
            while str(n) not in queues.delivered:  # noqa: ASYNC110 - the time is virtual
                await anyio.sleep(0.01)
            late.append(anyio.current_time() - began)
            paused.extend(relay.paused_topics.names)
            await anyio.sleep(1)
        queues.full.clear()

    run(store, queues, write)

    assert max(late) < 2.5, "a second between two reads"
    assert not paused, "the topic takes messages"
    gaps = [b - a for a, b in pairwise(queues.tries["0"])]
    assert len(gaps) >= 4
    assert all(b > 1.5 * a for a, b in pairwise(gaps) if b < 10), gaps
    for n in range(40):
        assert queues.delivered[str(n)] == sorted(queues.delivered[str(n)])


def test_a_topic_of_which_nothing_is_taken_is_paused_and_goes_on_soon() -> None:
    store, queues = MemoryOutbox(), Queues(0, 1)
    store.insert([row(str(n), n + 1) for n in range(200)])

    async def look(relay: Relay) -> None:
        while not relay.refused_topics.topics:  # noqa: ASYNC110 - the time is virtual
            await anyio.sleep(0.01)
        before = sum(map(len, queues.tries.values()))
        await anyio.sleep(60)
        tries = sum(map(len, queues.tries.values())) - before
        assert 60 / TopicPauses.PAUSE / 2 < tries <= 60 / TopicPauses.PAUSE + 1
        assert [each.by for each in relay.refused_topics.topics] == ["broker"]
        queues.full.clear()
        await anyio.sleep(2 * TopicPauses.PAUSE + 1)
        assert not store.rows, "nobody waits for a backoff of his own"

    run(store, queues, look)


def test_a_paused_topic_is_tried_with_another_subject_each_time() -> None:
    """One queue of it is read again, and that of the first subject stays full."""
    store, queues = MemoryOutbox(), Queues(0, 1)
    store.insert([row(str(n), n + 1) for n in range(200)])

    async def look(relay: Relay) -> None:
        while not relay.refused_topics.topics:  # noqa: ASYNC110 - the time is virtual
            await anyio.sleep(0.01)
        await anyio.sleep(30)
        queues.full.remove(1)
        await anyio.sleep(60)
        assert len(queues.delivered) == 100, "the odd ones"
        store.insert([row("99", 5_000)])
        await anyio.sleep(2 * TopicPauses.PAUSE)
        assert "99" in queues.delivered
        queues.full.clear()

    run(store, queues, look)
