"""Waves: no message is sent before the one before it was delivered."""

from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from uuid import UUID

import pytest
from anyio import CancelScope, lowlevel
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.relay import waves as waves_module
from dsql_outbox.publisher.relay.waves import SentWaves, publish_in_waves
from dsql_outbox.publisher.sinks import (
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    WrongOutcomes,
)

pytestmark = pytest.mark.anyio

DELIVERED, NOT_ATTEMPTED = Delivered(), NotAttempted()
OUTCOMES: list[Outcome] = [DELIVERED, Retry("later"), Rejected("never"), NOT_ATTEMPTED]

Plan = list[tuple[str, Outcome]]
"""A key and the sink's answer, for each message."""

plans = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from([DELIVERED] * 5 + OUTCOMES)), max_size=25
)


@pytest.fixture(autouse=True, scope="module")
def all_the_time() -> Generator[None]:
    """A slow moment of the machine must not end a round here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waves_module, "_LONGEST", 60.0)
        yield


class PlannedSink:
    """Answers as planned; fails in one wave, if asked to; keeps what each wave held."""

    system = "planned"

    def __init__(
        self, plan: Plan, *, ordered: bool = False, failing_wave: int | None = None
    ) -> None:
        self.ordered = ordered
        self.messages = [message(n, key) for n, (key, _) in enumerate(plan)]
        self.waves: list[list[int]] = []
        self._plan = plan
        self._failing_wave = failing_wave

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
        wave = [message.event_id.int for message in messages]
        if len(self.waves) == self._failing_wave:
            raise SinkUnavailable("planned")
        self.waves.append(wave)
        return [self._plan[n][1] for n in wave]


def message(n: int, key: str) -> Message:
    event_id = UUID(int=n)
    return Message(event_id, "events.X", key, {}, b"{}", str(event_id), 0, 0)


class Rights:
    """Leases that end: after so many waves, or by cutting one that runs."""

    def __init__(self, lost: dict[int, int] | None = None, *, cut: int | None = None) -> None:
        self._lost = lost or {}
        self._cut = cut
        self._waves = 0

    def sendable(self) -> set[int]:
        return {shard for shard in range(9) if self._waves < self._lost.get(shard, 99)}

    @contextmanager
    def bound(self, shards: Collection[int]) -> Generator[CancelScope]:
        assert shards
        with CancelScope() as scope:
            if self._waves == self._cut:
                scope.cancel()
            self._waves += 1
            yield scope


async def publish(sink: PlannedSink, rights: Rights | None = None) -> SentWaves:
    """Publish messages whose shard is the place of their key in the alphabet."""
    shards = [ord(message.key) - ord("a") for message in sink.messages]
    return await publish_in_waves(sink, sink.messages, shards, rights or Rights())


def by_key(sink: PlannedSink) -> dict[str, list[int]]:
    keys: dict[str, list[int]] = {}
    for n, sent in enumerate(sink.messages):
        keys.setdefault(sent.key, []).append(n)
    return keys


def wave_of(sink: PlannedSink) -> dict[int, int]:
    return {n: number for number, wave in enumerate(sink.waves) for n in wave}


@given(plan=plans, failing_wave=st.none() | st.integers(0, 4))
async def test_of_each_key_a_prefix_is_delivered_and_nothing_is_sent_too_early(
    plan: Plan, failing_wave: int | None
) -> None:
    sink = PlannedSink(plan, failing_wave=failing_wave)

    outcomes = (await publish(sink)).outcomes

    assert len(outcomes) == len(plan)
    sent = wave_of(sink)
    for indexes in by_key(sink).values():
        delivered = [outcomes[n] == DELIVERED for n in indexes]
        assert delivered == sorted(delivered, reverse=True)
        for before, after in pairwise(indexes):
            if after in sent:
                assert outcomes[before] == DELIVERED
                assert sent[before] < sent[after]


@given(plan=plans, failing_wave=st.none() | st.integers(0, 4))
async def test_a_wave_never_holds_a_key_twice_and_no_message_is_sent_twice(
    plan: Plan, failing_wave: int | None
) -> None:
    sink = PlannedSink(plan, failing_wave=failing_wave)

    await publish(sink)

    for wave in sink.waves:
        keys = [sink.messages[n].key for n in wave]
        assert len(keys) == len(set(keys))
    assert len(wave_of(sink)) == sum(map(len, sink.waves))


@given(plan=plans, failing_wave=st.none() | st.integers(0, 4))
async def test_an_outcome_is_what_the_sink_said_or_not_attempted(
    plan: Plan, failing_wave: int | None
) -> None:
    sink = PlannedSink(plan, failing_wave=failing_wave)

    waves = await publish(sink)

    sent = wave_of(sink)
    for n, outcome in enumerate(waves.outcomes):
        assert outcome == (plan[n][1] if n in sent else NOT_ATTEMPTED)


@given(plan=plans)
async def test_a_working_sink_is_sent_all_but_what_follows_a_failure(plan: Plan) -> None:
    sink = PlannedSink(plan)

    waves = await publish(sink)

    expected: set[int] = set()
    for indexes in by_key(sink).values():
        for n in indexes:
            expected.add(n)
            if plan[n][1] != DELIVERED:
                break
    assert waves.unavailable is None
    assert set(wave_of(sink)) == expected


async def test_many_keys_go_at_once() -> None:
    sink = PlannedSink([("a", DELIVERED), ("b", DELIVERED), ("a", DELIVERED), ("c", DELIVERED)])

    await publish(sink)

    assert sink.waves == [[0, 1, 3], [2]]


async def test_an_ordered_sink_gets_everything_in_one_call() -> None:
    plan: Plan = [("a", DELIVERED), ("a", Retry("later")), ("a", NOT_ATTEMPTED), ("b", DELIVERED)]
    sink = PlannedSink(plan, ordered=True)

    waves = await publish(sink)

    assert sink.waves == [[0, 1, 2, 3]]
    assert waves == SentWaves([outcome for _, outcome in plan])


async def test_what_was_known_before_the_sink_failed_stays() -> None:
    plan: Plan = [("a", DELIVERED), ("b", Rejected("never")), ("a", DELIVERED), ("a", DELIVERED)]
    sink = PlannedSink(plan, failing_wave=1)

    waves = await publish(sink)

    assert isinstance(waves.unavailable, SinkUnavailable)
    assert waves.outcomes == [DELIVERED, Rejected("never"), NOT_ATTEMPTED, NOT_ATTEMPTED]


@given(plan=plans, lost=st.dictionaries(st.integers(0, 3), st.integers(0, 4)))
async def test_what_is_sent_belongs_to_a_shard_that_is_ours(
    plan: Plan, lost: dict[int, int]
) -> None:
    sink = PlannedSink(plan)

    outcomes = (await publish(sink, Rights(lost))).outcomes

    for number, wave in enumerate(sink.waves):
        for n in wave:
            assert number < lost.get(ord(sink.messages[n].key) - ord("a"), 99)
    sent = wave_of(sink)
    assert all(outcomes[n] == NOT_ATTEMPTED for n in range(len(plan)) if n not in sent)


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_wave_that_is_cut_was_not_attempted_and_nothing_follows_it(ordered: bool) -> None:
    class SlowSink(PlannedSink):
        async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
            await lowlevel.checkpoint()
            return await super().publish(messages)

    sink = SlowSink([("a", DELIVERED), ("a", DELIVERED), ("b", DELIVERED)], ordered=ordered)

    waves = await publish(sink, Rights(cut=0))

    assert waves == SentWaves([NOT_ATTEMPTED] * 3)
    assert sink.waves == []


async def test_no_messages_are_no_call() -> None:
    for ordered in (True, False):
        sink = PlannedSink([], ordered=ordered)

        assert await publish_in_waves(sink, [], [], Rights()) == SentWaves([])
        assert sink.waves == []


async def test_a_sink_with_too_few_outcomes_is_named_with_both_numbers() -> None:
    class ShortSink(PlannedSink):
        async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
            return (await super().publish(messages))[1:]

    sink = ShortSink([("a", DELIVERED), ("b", DELIVERED)])

    with pytest.raises(WrongOutcomes, match=r"ShortSink gave 1 outcomes for 2 messages"):
        await publish(sink)


async def test_a_bug_in_a_sink_is_not_swallowed() -> None:
    class BrokenSink(PlannedSink):
        async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
            raise ZeroDivisionError(len(messages))

    sink = BrokenSink([("a", DELIVERED)])

    with pytest.raises(ZeroDivisionError):
        await publish(sink)
