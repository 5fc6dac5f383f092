"""Runs: which rows of a subject go together, and what follows an outcome in the middle."""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import anyio
import pytest
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import MemoryOutbox, in_virtual_time, relay_until

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher import (
    Answer,
    Delivered,
    NotAttempted,
    Outcome,
    PublisherSettings,
    Rejected,
    Retry,
    Unavailable,
)
from dsql_outbox.publisher.relay.memory.queues import Queues
from dsql_outbox.publisher.relay.memory.rows import Rows
from dsql_outbox.publisher.relay.memory.subjects import Hold, Shard, Subject
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.publisher.sinks import MAX_RUN
from dsql_outbox.schema.outbox_rows import OutboxRow

REPLAY = '{"replay":"1"}'


def in_queues(rows: Sequence[OutboxRow]) -> tuple[Queues, Shard]:
    queues, shard = Queues(Rows()), Shard(0, 1)
    queues.admit(shard, rows, 0.0, TopicPauses(), None)
    return queues, shard


def take(queues: Queues, *, most: int = 500, longest: int = 64) -> list[Subject]:
    return queues.take(most, free=8_000, of=8_000, may_send=lambda _: longest)


@pytest.mark.parametrize(
    ("rows", "longest", "length"),
    [
        (chain("a", list(range(1, 100))), 64, 31),  # half of what a new topic may have on its way
        (chain("a", list(range(1, 100))), 10, 10),
        (chain("a", list(range(1, 100))), 1, 1),
        (chain("a", [1]), 64, 1),
        ([*chain("a", [1, 2, 3]), row("a", 4, previous=3, topic="other")], 64, 3),
        ([*chain("a", [1, 2]), row("a", 3, headers=REPLAY), row("a", 4, previous=2)], 64, 2),
        ([row("a", 1, headers=REPLAY), row("a", 2)], 64, 1),
        ([row("a", n, payload="x" * 100_000) for n in range(1, 30)], 64, 10),
        ([row("a", n, payload="x" * (2 << 20)) for n in range(1, 3)], 64, 1),
    ],
    ids=["all", "ten", "one", "lone", "topic", "replay behind", "replay first", "1 MiB", "large"],
)
def test_a_run_has_one_topic_no_replay_and_a_limit(
    rows: list[OutboxRow], longest: int, length: int
) -> None:
    queues, _ = in_queues(rows)
    (subject,) = take(queues, longest=longest)
    assert [each.position for each in subject.busy] == list(range(1, length + 1))
    assert take(queues) == []


def test_a_row_that_failed_before_goes_alone() -> None:
    rows = chain("a", [1, 2, 3])
    queues, shard = in_queues(rows)
    shard.subjects[rows[0].key].holds = [Hold(rows[0].id, 1, 0.0)]
    (subject,) = take(queues)
    assert len(subject.busy) == 1


@pytest.mark.parametrize("hot", [1, 3])
def test_a_run_leaves_places_for_the_others_of_a_new_topic(hot: int) -> None:
    """Its first answer may take long."""
    rows = [each for n in range(hot) for each in chain(f"hot {n}", list(range(n + 1, 400, hot)))]
    queues, _ = in_queues([*rows, *(row(f"cold {n}", 500 + n) for n in range(5))])
    assert len(take(queues)) == hot + 5


@pytest.mark.parametrize("most", [1, 3, 4, 9])
def test_a_call_has_so_many_messages_at_most(most: int) -> None:
    queues, _ = in_queues([*chain("a", [1, 2, 3]), *chain("b", [4, 5, 6]), *chain("c", [7, 8, 9])])
    assert sum(len(subject.busy) for subject in take(queues, most=most)) == most


class RunSink:
    """A sink that keeps the prefix of a run; `outcomes` are those of some positions, one a try."""

    system = "memory"
    keeps_prefix = True

    def __init__(self, seconds: float = 0.002, **outcomes: list[Outcome | None]) -> None:
        self._seconds = seconds
        self._outcomes = {int(name.removeprefix("at_")): each for name, each in outcomes.items()}
        self.runs: list[list[int]] = []
        self.stored: list[int] = []
        self.attempts: Counter[int] = Counter()

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """See `Sink.publish`. The outcome None: the connection is lost."""
        await anyio.sleep(self._seconds)
        for _, run in groupby(enumerate(messages), lambda each: each[1].key):
            self.runs.append([])
            for index, message in run:
                position = int(message.headers["position"])
                self.runs[-1].append(position)
                self.attempts[position] = max(self.attempts[position], message.attempt)
                planned = self._outcomes.get(position)
                outcome = planned.pop(0) if planned else Delivered()
                if outcome is None:
                    raise SinkUnavailable("the connection is lost")
                answer(index, outcome)
                if outcome != Delivered():
                    break
                self.stored.append(position)


def test_a_hot_subject_leaves_in_runs() -> None:
    store, sink = MemoryOutbox(), RunSink(seconds=0.05)
    store.insert(chain("hot", list(range(1, 5_001))))

    seconds = in_virtual_time(relay_until(store, sink, lambda: not store.rows))

    assert sink.stored == list(range(1, 5_001))
    assert max(map(len, sink.runs)) == MAX_RUN
    assert seconds < 5_000 * 0.05 / 10, "at least ten times as fast as one at a time"


def test_a_hot_subject_does_not_delay_the_others() -> None:
    store, sink = MemoryOutbox(), RunSink(seconds=0.05)
    store.insert(chain("hot", list(range(1, 5_001))))
    store.insert([row(f"cold {n}", 5_001 + n) for n in range(100)])

    seconds = in_virtual_time(
        relay_until(store, sink, lambda: sum(n > 5_000 for n in sink.stored) == 100)
    )

    assert seconds < 1.0
    assert len(sink.stored) < 2_500


@pytest.mark.parametrize(
    ("outcome", "attempts"),
    [(Retry("no"), 2), (NotAttempted(), 1), (Unavailable("no"), 1), (None, 1)],
    ids=["retry", "not attempted", "unavailable", "connection lost"],
)
@pytest.mark.parametrize("at", [1, 7, 40])
def test_a_run_ends_at_its_first_failure_and_begins_again_there(
    outcome: Outcome | None, attempts: int, at: int
) -> None:
    store, sink = MemoryOutbox(), RunSink(**{f"at_{at}": [outcome]})
    store.insert(chain("a", list(range(1, 41))))

    in_virtual_time(relay_until(store, sink, lambda: not store.rows))

    assert sink.stored == list(range(1, 41))
    failed = next(number for number, run in enumerate(sink.runs) if at in run)
    assert sink.runs[failed][-1] == at
    assert sink.runs[failed + 1][0] == at
    assert sink.attempts == {n: attempts if n == at else 1 for n in range(1, 41)}


@pytest.mark.parametrize("is_valid", [True, False])
def test_a_message_that_is_given_up_holds_back_what_is_behind_it(*, is_valid: bool) -> None:
    store, sink = MemoryOutbox(), RunSink(at_7=[Rejected("no")])
    rows = chain("a", list(range(1, 41)))
    if not is_valid:
        rows[6].headers = "no JSON"
    store.insert(rows)
    settings = PublisherSettings(on_dead_letter="block")

    in_virtual_time(
        relay_until(
            store,
            sink,
            lambda: store.statements["record"] > 0 < 40 - len(store.rows),
            settings=settings,
        )
    )

    assert sink.stored == list(range(1, 7))
    assert [each.attempts for each in store.failures_of.values()] == [1]
    assert {id_.position for id_ in store.failures_of} == {7}
