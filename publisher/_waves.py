"""Messages to a sink, so that none overtakes an earlier one of its key."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

from anyio import CancelScope

from dsql_outbox.outbox import Message, SinkUnavailable

from .sinks import Delivered, NotAttempted, Outcome, Sink, WrongOutcomes

_LONGEST: Final = 0.25
"""Seconds after which no further wave begins: one hot key must not keep all others waiting."""


@dataclass(frozen=True, slots=True)
class Waves:
    """What became of messages: one outcome each, in their order.

    `unavailable` is set when the broker failed on the way: what was known by
    then stays, the rest is `NotAttempted`.
    """

    outcomes: list[Outcome]
    unavailable: SinkUnavailable | None = None


class Rights(Protocol):
    """Until when messages may be sent: while their shards are ours."""

    def sendable(self) -> Collection[int]:
        """The shards whose messages may be sent now."""
        ...

    def bound(self, shards: Collection[int]) -> AbstractContextManager[CancelScope]:
        """A scope that is cancelled when one of these shards is ours no longer."""
        ...


async def publish_in_waves(
    sink: Sink, messages: Sequence[Message], shards: Sequence[int], rights: Rights
) -> Waves:
    """Publish messages, those of one key in the given order; `shards` is of each its shard.

    An ordered sink gets them in one call. Any other gets waves: one message of
    each key, and the next of a key only after this one was delivered; after any
    other outcome the rest of the key is `NotAttempted`. Raises `WrongOutcomes`
    when the sink breaks its contract; what else it raises is a bug, and goes on.

    Waves end after `_LONGEST`; what is left is `NotAttempted`, for the next round.
    A message whose shard is lost before its wave is `NotAttempted` too. A wave that
    is running then is cut: its messages may be stored or not, and count as
    `NotAttempted`, since they cannot be blamed; their rows stay in the outbox,
    and whoever owns the shard sends them before anything later of their keys.
    """
    outcomes: list[Outcome] = [NotAttempted()] * len(messages)
    queues = _queues(messages)
    wave = list(range(len(messages))) if sink.ordered else _heads(queues.values())
    end = monotonic() + _LONGEST
    try:
        while wave := _allowed(wave, shards, rights):
            with rights.bound({shards[n] for n in wave}):
                answers = await _publish(sink, [messages[n] for n in wave])
                for n, outcome in zip(wave, answers, strict=True):
                    outcomes[n] = outcome
            keys = (messages[n].key for n in wave if isinstance(outcomes[n], Delivered))
            is_last = sink.ordered or monotonic() > end
            wave = [] if is_last else _heads(queues[key] for key in keys)
    except SinkUnavailable as error:
        return Waves(outcomes, error)
    return Waves(outcomes)


def _allowed(wave: Sequence[int], shards: Sequence[int], rights: Rights) -> list[int]:
    sendable = rights.sendable() if wave else ()
    return [n for n in wave if shards[n] in sendable]


async def _publish(sink: Sink, wave: Sequence[Message]) -> Sequence[Outcome]:
    answers = await sink.publish(wave)
    if len(answers) != len(wave):
        raise WrongOutcomes(sink, expected=len(wave), actual=len(answers))
    return answers


def _queues(messages: Sequence[Message]) -> dict[str, deque[int]]:
    """The indexes of each key's messages, in order."""
    queues: dict[str, deque[int]] = {}
    for n, message in enumerate(messages):
        queues.setdefault(message.key, deque()).append(n)
    return queues


def _heads(queues: Iterable[deque[int]]) -> list[int]:
    """Take the next index off each queue that has one."""
    return [queue.popleft() for queue in queues if queue]
