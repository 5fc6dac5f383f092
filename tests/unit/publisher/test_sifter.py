"""A call that raises: one message is at fault if others get through, and else the sink."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from uuid import UUID

import pytest

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher import Answer, Delivered, Outcome, PublisherSettings, Rejected, Retry
from dsql_outbox.publisher.relay.traced_sink import TracedSink

pytestmark = pytest.mark.anyio

SECRET = "s3cret"
FAILED = Retry("the sink raised TypeError")


def message(n: int, key: str | None = None, attempt: int = 1) -> Message:
    key = f"key-{n}" if key is None else key
    return Message(UUID(int=n), "t", key, {}, b"{}", str(n), 1, 2, attempt)


class Mapping:
    """A sink that raises while it maps the messages of `bad`, before or after it sends others."""

    system = "memory"
    keeps_prefix = True

    def __init__(self, bad: Collection[int] = (), *, sends_first: bool = False) -> None:
        self.bad = bad
        self.is_away = False
        self.stored: list[int] = []
        self.calls: list[list[int]] = []
        self._sends_first = sends_first

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        numbers = [each.event_id.int for each in messages]
        self.calls.append(numbers)
        if self.is_away:
            raise ConnectionError(SECRET)
        if not self._sends_first:
            self._map(numbers)
        for index, number in enumerate(numbers):
            self._map([number])
            self.stored.append(number)
            answer(index, Delivered())

    def _map(self, numbers: Collection[int]) -> None:
        for number in numbers:
            if number in self.bad:
                raise TypeError(SECRET)


class Relayed:
    """Sends calls through the sink of a publisher, and keeps the outcomes of each message."""

    def __init__(self, sink: Mapping) -> None:
        self.sink = sink
        self._traced = TracedSink(sink, [], PublisherSettings())
        self.outcomes: dict[int, list[Outcome]] = {}

    async def __call__(self, *messages: Message) -> None:
        def answer(index: int, outcome: Outcome) -> None:
            self.outcomes.setdefault(messages[index].event_id.int, []).append(outcome)

        await self._traced.publish(messages, answer)


@pytest.mark.parametrize("sends_first", [False, True])
@pytest.mark.parametrize(
    "bad", [[1], [140], [300], [1, 2, 3], [7, 100, 101, 250], [*range(1, 302, 2)]]
)
async def test_a_message_for_which_a_sink_raises_fails_alone(
    bad: list[int], sends_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Mapping(bad, sends_first=sends_first)
    relayed, others = Relayed(sink), [n for n in range(1, 302) if n not in bad]
    await relayed(*(message(n) for n in range(1, 302)))
    assert sorted(sink.stored) == others
    wanted = {n: [FAILED] for n in bad} | {n: [Delivered()] for n in others}
    assert relayed.outcomes == wanted
    assert len(sink.calls) <= 30 * len(bad) + 2
    assert SECRET not in caplog.text
    assert caplog.text.count("the sink raised TypeError when it was sent alone") == 1


@pytest.mark.parametrize("position", [1, 2, 77, 255, 256])
@pytest.mark.parametrize("before", [0, 3])
async def test_a_run_ends_at_the_message_for_which_a_sink_raises(
    position: int, before: int
) -> None:
    """Nothing of its run is stored behind it, and all other runs are."""
    hot = [*range(1_000, 1_256)]
    bad = hot[position - 1]
    relayed = Relayed(Mapping([bad]))
    await relayed(
        *(message(n) for n in range(before)),
        *(message(n, "hot") for n in hot),
        *(message(n, f"other-{n // 5}") for n in range(50, 80)),
    )
    stored = relayed.sink.stored
    assert [n for n in stored if n >= 1_000] == hot[: position - 1]
    others = [*range(before), *range(50, 80)]
    assert [n for n in stored if n < 1_000] == others
    assert relayed.outcomes.pop(bad) == [FAILED]
    assert relayed.outcomes == {n: [Delivered()] for n in stored}
    assert len(relayed.sink.calls) < 60


@pytest.mark.parametrize("number", [1, 2, 500])
async def test_when_nothing_gets_through_no_message_has_failed(number: int) -> None:
    relayed = Relayed(Mapping())
    relayed.sink.is_away = True
    messages = [message(n) for n in range(number)]
    for _ in range(10):
        with pytest.raises(ConnectionError):
            await relayed(*messages)
        with pytest.raises(ConnectionError):
            await relayed(messages[0])
    assert relayed.outcomes == {}
    assert len(relayed.sink.calls) <= 10 * (5 + 1)
    relayed.sink.is_away = False
    await relayed(*messages)
    assert relayed.outcomes == {n: [Delivered()] for n in range(number)}


async def test_a_message_that_always_comes_alone_has_failed_when_another_gets_through() -> None:
    relayed = Relayed(Mapping([7]))
    await relayed(message(1))  # before, which says nothing
    for _ in range(3):
        with pytest.raises(TypeError):
            await relayed(message(7))
    await relayed(message(2))
    await relayed(message(7))
    assert relayed.outcomes.pop(7) == [FAILED]
    for attempt in range(2, 5):  # nothing else is sent meanwhile
        await relayed(message(7, attempt=attempt))
    assert relayed.outcomes.pop(7) == [FAILED] * 3


@pytest.mark.parametrize("attempt", [2, 9])
async def test_a_message_that_failed_before_is_sent_behind_the_others_and_alone(
    attempt: int,
) -> None:
    relayed = Relayed(Mapping([3]))
    await relayed(*map(message, range(5)))
    relayed.sink.calls.clear()
    await relayed(*(message(n, attempt=attempt if n == 3 else 1) for n in range(5)))
    assert relayed.sink.calls == [[0, 1, 2, 4], [3]]
    assert relayed.outcomes[3] == [FAILED] * 2


async def test_a_message_that_is_sick_no_more_is_delivered() -> None:
    relayed = Relayed(Mapping([3]))
    await relayed(*map(message, range(5)))
    relayed.sink.bad = ()
    await relayed(message(3, attempt=2))
    assert relayed.outcomes[3] == [FAILED, Delivered()]


class Answering(Mapping):
    """A sink that answers, and then raises one of the errors of this library, or another one."""

    def __init__(self, raises: Callable[[], Exception]) -> None:
        super().__init__()
        self._raises = raises

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        await super().publish(messages[:1], answer)
        for index in range(1, len(messages)):
            answer(index, Rejected("never"))
        raise self._raises()


@pytest.mark.parametrize("raises", [lambda: SinkUnavailable("away"), lambda: ValueError(SECRET)])
async def test_answers_before_an_error_stand_and_are_not_asked_for_again(
    raises: Callable[[], Exception],
) -> None:
    relayed = Relayed(Answering(raises))
    with suppress(SinkUnavailable, ValueError):
        await relayed(*map(message, range(3)))
    assert relayed.outcomes == {0: [Delivered()], 1: [Rejected("never")], 2: [Rejected("never")]}
    assert len(relayed.sink.calls) == 1


@pytest.mark.parametrize("attempt", [1, 2])
async def test_an_error_that_was_about_a_message_before_is_so_again_if_the_sink_works(
    attempt: int,
) -> None:
    """No other message is sent, so the sink is asked."""
    relayed = Relayed(Mapping([3, 8]))
    await relayed(*map(message, range(5)))
    await relayed(message(8, attempt=attempt))
    assert relayed.outcomes[8] == [FAILED]
    relayed.sink.is_away = True
    for number in (9, 10):
        with pytest.raises(ConnectionError):
            await relayed(message(number, attempt=attempt))
    assert relayed.outcomes.keys() == {*range(5), 8}


async def test_a_message_that_raised_in_an_outage_is_sent_alone_and_delivered_once() -> None:
    """Also if another one raises beside it, and waits until the others were sent."""
    relayed = Relayed(Mapping([1]))
    relayed.sink.is_away = True
    with pytest.raises(ConnectionError):
        await relayed(message(3, attempt=2))
    relayed.sink.is_away = False
    await relayed(message(1), message(2), message(3, attempt=2))
    assert relayed.outcomes == {1: [FAILED], 2: [Delivered()], 3: [Delivered()]}
    assert sorted(relayed.sink.stored) == [2, 3]
