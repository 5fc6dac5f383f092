"""The relay with a map: rows that it leaves out, refuses, or fails for."""

import asyncio
import logging
import signal
from collections.abc import Callable, Collection, Sequence

import anyio
import pytest
from tests.support.publisher.given_rows import chain, row
from tests.support.publisher.virtual_relay import (
    Answering,
    Clock,
    MemoryOutbox,
    in_virtual_time,
    relay_until,
)

from dsql_outbox.brokers.rabbitmq import RabbitMqProperties
from dsql_outbox.outbox import Message
from dsql_outbox.publisher import (
    TOMBSTONE,
    Answer,
    Delivered,
    MessageMap,
    Outcome,
    PublisherSettings,
    Refuse,
    Retry,
    Unavailable,
    WireForm,
)
from dsql_outbox.publisher.relay.memory.topics import TopicPauses
from dsql_outbox.publisher.relay.relay import Relay
from dsql_outbox.publisher.relay.store import Failure, StoredFailure, SubjectName
from dsql_outbox.publisher.sinks import MAX_RUN_BYTES, Tombstone
from dsql_outbox.schema.outbox_rows import OutboxRow


class Broker:
    """A sink that answers for each message after some milliseconds, as `decide` says."""

    system = "memory"

    def __init__(
        self,
        decide: Callable[[Message], Outcome] = lambda _: Delivered(),
        *,
        keeps_prefix: bool = True,
    ) -> None:
        self._decide = decide
        self.keeps_prefix = keeps_prefix
        self.takes: Collection[type] = ()
        self.stored: list[Message] = []
        self.calls: list[list[Message]] = []

    @property
    def positions(self) -> list[int]:
        return [position_of(message) for message in self.stored]

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        self.calls.append([*messages])
        await anyio.sleep(0.005)
        failed = set[str]()
        for index, message in enumerate(messages):
            if message.key in failed:
                continue
            outcome = self._decide(message)
            if outcome == Delivered():
                self.stored.append(message)
            else:
                failed.add(message.key)
            answer(index, outcome)


def position_of(message: Message) -> int:
    return int(message.headers["position"])


def outbox(*rows: OutboxRow) -> MemoryOutbox:
    store = MemoryOutbox()
    store.insert(rows)
    return store


def drain(
    store: MemoryOutbox,
    broker: Broker,
    map_: MessageMap,
    done: Callable[[], bool] | None = None,
    settings: PublisherSettings | None = None,
) -> float:
    """Relay until the outbox is empty, or something else is so; returns the virtual seconds."""
    ends = done or (lambda: not store.rows)
    return in_virtual_time(relay_until(store, broker, ends, settings=settings, map=map_), now=5e3)


def skip(*positions: int) -> MessageMap:
    def map_(message: Message) -> Message | None:
        return None if position_of(message) in positions else message

    return map_


# --- rows that are left out ------------------------------------------------------------------


@pytest.mark.parametrize("keeps_prefix", [True, False])
@pytest.mark.parametrize(
    "skipped",
    [
        {1},
        {1, 2, 3},
        {5},
        {4, 5, 6},
        {9},
        {7, 8, 9},
        {1, 3, 5, 7, 9},
        {2, 4, 6, 8},
        {*range(1, 10)},
    ],
    ids=str,
)
def test_what_is_left_out_goes_with_its_subject_and_is_never_sent(
    skipped: set[int], keeps_prefix: bool
) -> None:
    store, broker = outbox(*chain("hot", [*range(1, 10)])), Broker(keeps_prefix=keeps_prefix)
    drain(store, broker, skip(*skipped))
    assert broker.positions == [n for n in range(1, 10) if n not in skipped]


@pytest.mark.parametrize("pages", [1, 7])
def test_a_backlog_of_nothing_else_is_settled(pages: int) -> None:
    rows = [row(f"s{n % 300}", n + 1) for n in range(500 * pages + 3)]
    store, broker = outbox(*rows), Broker()
    drain(store, broker, lambda _: None)
    assert broker.calls == []


@pytest.mark.parametrize("behind", [1, 2, 5])
def test_what_is_left_out_waits_for_the_message_before_it(behind: int) -> None:
    """Gone before it, its successor would be found without a predecessor, and overtake that."""
    rows = chain("hot", [*range(1, 3 + behind)])
    store, left = outbox(*rows), list[int]()

    def decide(_: Message) -> Outcome:
        left.append(len(store.rows))
        return Retry("not now") if len(left) < 4 else Delivered()

    broker = Broker(decide)
    drain(store, broker, skip(*range(2, 2 + behind)))
    assert left[:4] == [len(rows)] * 4
    assert broker.positions == [1, 2 + behind]


def test_a_message_that_failed_before_may_be_left_out_later() -> None:
    tries = list[int]()

    def map_(message: Message) -> Message | None:
        if position_of(message) == 2:
            tries.append(message.attempt)
            if len(tries) < 3:
                raise ValueError
            return None
        return message

    store, broker = outbox(*chain("a", [1, 2, 3])), Broker()
    drain(store, broker, map_, lambda: not store.rows and not store.failures_of)
    assert broker.positions == [1, 3]


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 700, 2_000], ids=["first", "between", "last"])
def test_a_map_that_fails_for_one_subject_delays_no_other(at: int) -> None:
    """Also if that one comes first, when it is not known whether the map works at all."""
    rows = [row(f"s{n}", n + 1) for n in range(2_001)]
    rows += [row(f"s{at}", 3_000 + n) for n in range(3)]

    def map_(message: Message) -> Message:
        if message.key == f"Car/s{at}":
            raise KeyError(message.payload)
        return message

    store, broker = outbox(*rows), Broker()
    seconds = drain(store, broker, map_, lambda: len(broker.stored) == 2_000)
    assert seconds < 2 * TopicPauses.PAUSE
    settings = PublisherSettings(attempts=3)
    again = outbox(*rows)
    drain(again, Broker(), map_, lambda: len(again.letters) == 4, settings)
    assert {letter.attempts for letter in again.letters} == {3}


@pytest.mark.parametrize(("before", "length"), [(0, 5), (1, 5), (4, 5), (9, 30)])
def test_an_error_in_a_run_sends_what_is_before_it_and_holds_back_the_rest(
    before: int, length: int
) -> None:
    works = asyncio.Event()

    def map_(message: Message) -> Message:
        if message.key == "Car/hot" and position_of(message) == before + 1 and not works.is_set():
            raise ValueError
        return message

    store = outbox(*chain("hot", [*range(1, length + 1)]), row("other", 100))
    broker = Broker()

    async def mend(_: Relay) -> None:
        while not store.failures_of:  # noqa: ASYNC110 - the time is virtual
            await anyio.sleep(0.01)
        await anyio.sleep(0.3)
        assert [n for n in broker.positions if n < 100] == [*range(1, before + 1)]
        works.set()

    in_virtual_time(relay_until(store, broker, lambda: not store.rows, map=map_, beside=mend))
    assert [n for n in broker.positions if n < 100] == [*range(1, length + 1)]


def test_a_refusal_gives_a_message_up_at_once_and_its_subject_goes_on() -> None:
    def map_(message: Message) -> Message | Refuse:
        return Refuse("no order number") if position_of(message) == 3 else message

    store, broker = outbox(*chain("a", [1, 2, 3, 4])), Broker()
    seconds = drain(store, broker, map_)
    assert seconds < 2
    assert broker.positions == [1, 2, 4]
    (letter,) = store.letters
    assert (letter.attempts, letter.error) == (1, "the map refused it: no order number")


class Mendable:
    """A map that fails for each message of one topic, until it is mended."""

    def __init__(self) -> None:
        self.works = False
        self.calls = 0

    def __call__(self, message: Message) -> Message:
        if message.topic == "bad" and not self.works:
            self.calls += 1
            raise LookupError
        return message


@pytest.mark.parametrize("number", [1, 5, pytest.param(1_500, marks=pytest.mark.slow)])
def test_a_map_that_works_for_no_message_of_a_topic_pauses_it(
    caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """As a broken deploy: thousands of subjects, and no attempt counts."""
    bad = [row(f"s{n}", n + 1, topic="bad") for n in range(number)]
    good = [row(f"g{n}", 5_000 + n, topic="good") for n in range(50)]
    store, broker, map_ = outbox(*bad, *good), Broker(), Mendable()

    async def mend(relay: Relay) -> None:
        await anyio.sleep(60)
        assert len(broker.stored) == 50
        ((refused,), _) = relay.refused_topics
        assert (refused.topic, refused.by) == ("bad", "map")
        assert 59 <= (refused.seconds or 0.0) <= 60, "since its first message"
        assert map_.calls <= 13 * number, "at the start, and each five seconds"
        assert map_.calls < 60 * 250
        assert relay.relayed.failed == 0
        map_.works = True

    seconds = in_virtual_time(
        relay_until(store, broker, lambda: not store.rows, map=map_, beside=mend)
    )
    assert seconds < 60 + 2 * TopicPauses.PAUSE + 1
    assert len(broker.stored) == number + 50
    assert not store.statements["record"]
    lines = [each.getMessage() for each in caplog.records if "takes no" in each.getMessage()]
    assert set(lines) == {"Topic bad takes no messages now: the map raised LookupError"}


@pytest.mark.parametrize("between", [0, 700, 5_000])
@pytest.mark.parametrize("poisons", [1, 3, 40])
def test_a_message_that_is_behind_the_only_ones_that_fail_is_found(
    poisons: int, between: int
) -> None:
    """The topic is paused for the first ones, and then tried with others than these.

    Between them are messages of a topic that the broker does not take, so that no read has both.
    """

    def map_(message: Message) -> Message:
        if message.key.startswith("Car/bad"):
            raise ValueError
        return message

    def decide(message: Message) -> Outcome:
        return Unavailable("no topic") if message.topic == "away" else Delivered()

    bad = [row(f"bad{n}", n + 1, topic="t") for n in range(poisons)]
    others = [row(f"o{n}", 100 + n, topic="away") for n in range(between)]
    store, broker = outbox(*bad, *others, row("good", 10_000, topic="t")), Broker(decide)
    seconds = drain(store, broker, map_, lambda: len(broker.stored) == 1)
    assert seconds < 2 * TopicPauses.PAUSE + 1


@pytest.mark.parametrize(
    ("poisons", "within"), [(300, 9), pytest.param(3_000, 20, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("comes", ["nothing", "good", "bad"])
def test_however_many_messages_a_map_fails_for_it_comes_to_the_others(
    poisons: int, within: float, comes: str
) -> None:
    """As an old form that many rows have: the relay tries all of them, and not the first again."""
    bad = [row(f"bad{n}", n + 1) for n in range(poisons)]
    store, broker = outbox(*bad, *(row(f"good{n}", 10_000 + n) for n in range(200))), Broker()

    def map_(message: Message) -> Message:
        if message.key.startswith("Car/bad"):
            raise KeyError
        return message

    async def write(_: Relay) -> None:
        for n in range(600):
            await anyio.sleep(0.5)
            if comes != "nothing":
                store.insert([row(f"{comes}-{n}", round(anyio.current_time() * 1e6))])

    def has_all() -> bool:
        return len(broker.stored) >= 200 and {*range(10_000, 10_200)} <= {*broker.positions}

    ends = relay_until(store, broker, has_all, map=map_, beside=write)
    assert in_virtual_time(ends, now=5e3) < within


class Held(MemoryOutbox):
    """Its first row failed once, before the start."""

    async def stored_failures(self, shards: Collection[int]) -> Sequence[StoredFailure]:
        await super().stored_failures(shards)
        failed = next(iter(self.rows))
        self.failures_of[failed] = Failure(failed, "not now", 1, 0.0)
        return [StoredFailure(failed, SubjectName("Car", "a"), 1, 0.0)]


def test_a_message_that_failed_before_the_start_is_tried_though_the_map_fails() -> None:
    """Its topic is paused at once, and it is the only message of it."""
    map_ = Mendable()
    store, broker = Held(), Broker()
    store.insert([row("a", 1, topic="bad"), row("a", 2, previous=1, topic="bad")])

    async def mend(_: Relay) -> None:
        await anyio.sleep(60)
        assert 2 < map_.calls < 15
        map_.works = True

    ends = relay_until(store, broker, lambda: len(broker.stored) == 2, map=map_, beside=mend)
    assert in_virtual_time(ends, now=5e3) < 60 + 3 * TopicPauses.PAUSE
    assert broker.positions == [1, 2]
    assert not store.statements["record"]


def test_a_failed_row_may_be_delivered_by_a_try_of_the_map_when_its_own_time_comes() -> None:
    map_ = Mendable()
    store, sink = Held(), Answering(lambda _: 0.0)
    store.insert([row("a", 1, topic="bad")])

    async def mend(_: Relay) -> None:
        await anyio.sleep(TopicPauses.PAUSE / 2)
        map_.works = True

    ends = relay_until(store, sink, lambda: not store.rows, map=map_, beside=mend)
    assert in_virtual_time(ends, now=5e3) < TopicPauses.PAUSE + 1


@pytest.mark.parametrize(
    "error", [SystemExit, GeneratorExit, asyncio.CancelledError, MemoryError, RecursionError]
)
def test_whatever_the_map_raises_is_the_failure_of_one_message(
    error: type[BaseException],
) -> None:
    def map_(message: Message) -> Message:
        if message.key == "Car/bad":
            raise error
        return message

    settings = PublisherSettings(attempts=2)
    store, broker = outbox(row("bad", 1), *(row(f"s{n}", n) for n in range(2, 30))), Broker()
    drain(store, broker, map_, settings=settings)
    (letter,) = store.letters
    assert letter.error.startswith(f"the map raised {error.__name__}\n  {__file__}:")
    assert len(broker.stored) == 28


def test_a_keyboard_interrupt_ends_the_relay() -> None:
    def map_(_: Message) -> Message:
        raise KeyboardInterrupt

    store = outbox(row("a", 1))
    with pytest.raises(KeyboardInterrupt):
        drain(store, Broker(), map_)
    assert len(store.rows) == 1


class Ended(BaseException):
    """What a signal handler raises to end the program."""


@pytest.mark.parametrize("error", [SystemExit, Ended])
def test_what_a_signal_handler_raises_in_a_map_ends_the_relay(error: type[BaseException]) -> None:
    def end(_number: int, _frame: object) -> None:
        raise error

    def map_(message: Message) -> Message:
        signal.raise_signal(signal.SIGUSR1)
        return message

    store, before = outbox(row("a", 1)), signal.signal(signal.SIGUSR1, end)
    try:
        with pytest.raises((error, BaseExceptionGroup)):
            drain(store, Broker(), map_)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(store.rows) == 1
    assert not store.statements["record"]


def test_a_map_that_returns_a_coroutine_fails_its_message() -> None:
    async def mapped(message: Message) -> bytes:
        return message.payload

    store = outbox(row("a", 1), row("b", 2))
    drain(
        store,
        Broker(),
        lambda message: mapped(message) if message.key == "Car/a" else b"",
        settings=PublisherSettings(attempts=1),
    )
    (letter,) = store.letters
    assert letter.error == (
        "the map returned a coroutine: it must be a plain function, and not async def"
    )


# --- a map that takes long ---------------------------------------------------------------------


@pytest.mark.parametrize(("subjects", "works"), [(1, True), (20, True), (20, False)])
def test_others_wait_for_one_call_of_a_map_that_blocks(subjects: int, works: bool) -> None:
    """An answer, a statement and a health check take several turns of the loop."""
    clock, mapped = Clock(5e3), dict[int, float]()
    longest = 0.0

    def map_(message: Message) -> Message:
        clock.now += 2
        mapped[position_of(message)] = clock.now
        if not works and position_of(message) % 2:
            raise ValueError
        return message

    class Remote(Broker):
        waited = 0.0

        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            for _ in range(10):
                await anyio.sleep(0.001)
            for each in messages:
                self.waited = max(self.waited, clock.now - mapped[position_of(each)])
            await super().publish(messages, answer)

    async def check_health(_: Relay) -> None:
        nonlocal longest
        while True:
            began = clock.now
            for _ in range(10):
                await anyio.sleep(0.001)
            longest = max(longest, clock.now - began)

    rows = [row(f"s{n % subjects}", n + 1) for n in range(20)]
    store, broker = outbox(*rows), Remote()
    settings = PublisherSettings(attempts=1)
    ends = relay_until(
        store, broker, lambda: not store.rows, settings=settings, map=map_, beside=check_health
    )
    assert in_virtual_time(ends, clock=clock) < 20 * (2 + 2) + 2 * TopicPauses.PAUSE
    assert max(longest, broker.waited) < 2.1
    assert store.statements["delete"] >= 5


# --- what the sink gets ----------------------------------------------------------------------


def test_what_a_map_does_to_its_message_has_no_effect() -> None:
    def map_(message: Message) -> WireForm:
        message.headers["position"] = "1"
        message.headers["mine"] = "no"
        del message.headers["subject"]
        return WireForm({"n": 1})

    store, broker = outbox(*chain("a", [4, 5])), Broker()
    drain(store, broker, map_)
    assert broker.positions == [4, 5]
    for message in broker.stored:
        assert message.headers["subject"] == message.key == "Car/a"
        assert "mine" not in message.headers


def test_a_topic_of_the_map_keeps_the_order_and_the_pause_of_the_stored_one() -> None:
    store = outbox(*chain("a", [1, 2]), *chain("b", [3, 4], topic="other"))
    broker = Broker(lambda m: Unavailable("no") if m.topic == "v2.other" else Delivered())

    drain(
        store,
        broker,
        lambda each: WireForm(b"", topic=f"v2.{each.topic}", key="one"),
        lambda: broker.positions == [1, 2] and len(broker.calls) > 1,
    )

    assert {m.topic for m in broker.stored} == {f"v2.{broker.stored[0].stored_topic}"}
    assert {m.broker_key for m in broker.stored} == {"one"}
    assert [row.position for row in store.rows.values()] == [3, 4]


def test_a_second_topic_for_a_stored_one_fails_its_message() -> None:
    store, broker = outbox(*chain("a", [1, 2])), Broker()
    settings = PublisherSettings(attempts=1)

    drain(store, broker, lambda m: WireForm(b"", topic=f"t{position_of(m)}"), settings=settings)

    assert broker.positions == [1]
    assert "two topics to the messages of one stored topic" in store.letters[0].error


@pytest.mark.parametrize("deletes", [True, False])
def test_only_a_sink_that_says_so_gets_a_deletion(*, deletes: bool) -> None:
    store, broker = outbox(*chain("a", [1, 2])), Broker()
    if deletes:
        broker.takes = {Tombstone}

    drain(store, broker, lambda m: TOMBSTONE if position_of(m) == 1 else m)

    assert broker.positions == ([1, 2] if deletes else [2])
    assert [each.error.count("TOMBSTONE") for each in store.letters] == [1] * (not deletes)


def test_properties_of_another_broker_pause_their_topic_and_make_no_dead_letter() -> None:
    store, broker = outbox(*chain("a", [1, 2]), *chain("b", [3], topic="u")), Broker()
    other = WireForm(b"", properties=RabbitMqProperties(app_id="shop"))

    drain(
        store,
        broker,
        lambda m: other if m.topic == "t" else m,
        lambda: broker.positions == [3],
        PublisherSettings(attempts=1),
    )
    assert (len(store.rows), store.letters) == (2, [])

    broker.takes = {RabbitMqProperties}
    drain(store, broker, lambda _: other)
    assert broker.positions == [3, 1, 2]


@pytest.mark.parametrize("size", [1_000, 100_000, 400_000, 2 << 20])
def test_the_bytes_that_are_sent_limit_a_run(size: int) -> None:
    store, broker = outbox(*chain("a", [*range(1, 21)])), Broker()
    drain(store, broker, lambda _: bytes(size))
    assert broker.positions == [*range(1, 21)]
    for call in broker.calls:
        assert len(call) == 1 or sum(len(each.payload) for each in call) <= MAX_RUN_BYTES
    assert len(broker.calls[0]) == max(1, min(20, MAX_RUN_BYTES // (size + 20)))


def test_no_log_line_and_no_error_quotes_what_the_map_was_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret = "Hunter2"

    def map_(message: Message) -> object:
        if message.key == "Car/raises":
            raise ValueError(message.payload)
        if message.key == "Car/returns":
            return message.payload.decode() == secret
        if message.key == "Car/type":
            return WireForm(b"", content_type=f"{message.payload.decode()}\n")
        return message

    rows = [row(key, n, payload=secret) for n, key in enumerate(("raises", "returns", "type"), 1)]
    store = outbox(*rows, row("good", 9))
    with caplog.at_level(logging.DEBUG):
        drain(store, Broker(), map_, settings=PublisherSettings(attempts=1))
    assert len(store.letters) == 3
    assert secret not in "".join(letter.error for letter in store.letters)
    assert secret not in caplog.text
