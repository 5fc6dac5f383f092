"""Send messages to a sink so that none overtakes an earlier one of its key."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from time import monotonic
from typing import Final, Protocol

from anyio import CancelScope, create_task_group

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Outcome, Sink, WrongAnswer

_LONGEST: Final = 0.25
"""Seconds after which no further wave begins, so that one hot key does not delay all others."""

_LANES: Final = 2
_MANY: Final = 32
"""From this number of keys on, there are lanes: while one waits for the broker, the other works."""


@dataclass(frozen=True, slots=True)
class SentWaves:
    """The outcomes of messages, in their order.

    `unavailable` is set when the broker failed. Outcomes that were known by then
    stay, the others are `NotAttempted`.
    """

    outcomes: list[Outcome]
    unavailable: SinkUnavailable | None = None


class Rights(Protocol):
    """The right to send messages of a shard, which lasts as long as the lease."""

    def sendable(self) -> Collection[int]:
        """The shards whose messages may be sent now."""
        ...

    def bound(self, shards: Collection[int]) -> AbstractContextManager[CancelScope]:
        """A scope that is cancelled when the lease of one of these shards ends."""
        ...


async def publish_in_waves(
    sink: Sink, messages: Sequence[Message], shards: Sequence[int], rights: Rights
) -> SentWaves:
    """Publish messages, those of a key in the given order; `shards[i]` is that of `messages[i]`.

    An ordered sink gets all messages in one call. Any other sink gets waves with one
    message per key. The next message of a key follows only after this one was
    delivered; after any other outcome, the rest of the key is `NotAttempted`. Raises
    `WrongAnswer` when the sink breaks its contract, and any other error of the sink
    except `SinkUnavailable`.

    No wave starts after `_LONGEST` seconds; the rest is `NotAttempted` and left to the
    next round. A message whose shard is lost before its wave is `NotAttempted` too. If
    a shard is lost during a wave, the wave is cancelled. Its messages may be stored,
    and are `NotAttempted`, because they are not at fault. Their rows stay in the
    outbox, and the owner of the shard sends them before later ones of their keys.
    """
    waves = _Waves(sink, messages, shards, rights)
    if sink.ordered:
        await waves.send(range(len(messages)))
    else:
        queues = list(_queues(messages).values())
        lanes = _LANES if len(queues) >= _MANY else 1
        async with create_task_group() as tasks:
            for lane in range(lanes):
                tasks.start_soon(waves.run, queues[lane::lanes])
    return waves.ended()


class _Waves:
    """The messages of one round, while they are sent."""

    def __init__(
        self, sink: Sink, messages: Sequence[Message], shards: Sequence[int], rights: Rights
    ) -> None:
        self._sink = sink
        self._messages = messages
        self._shards = shards
        self._rights = rights
        self._end = monotonic() + _LONGEST
        self._outcomes: list[Outcome] = [NotAttempted()] * len(messages)
        self._error: Exception | None = None

    def ended(self) -> SentWaves:
        """The outcomes; raises the error of the sink unless it is `SinkUnavailable`."""
        if self._error is None or isinstance(self._error, SinkUnavailable):
            return SentWaves(self._outcomes, self._error)
        raise self._error

    async def run(self, queues: Sequence[deque[int]]) -> None:
        """Send waves of some keys, until the time is over or the broker fails."""
        delivered: Iterable[deque[int]] = queues
        while self._error is None and (wave := _heads(delivered)):
            await self.send([n for n, _ in wave])
            if monotonic() > self._end:
                break
            delivered = [q for n, q in wave if isinstance(self._outcomes[n], Delivered)]

    async def send(self, wave: Sequence[int]) -> None:
        """Send the messages of one wave whose shards are still owned, and note the outcomes."""
        sendable = self._rights.sendable() if wave else ()
        wave = [n for n in wave if self._shards[n] in sendable]
        if not wave:
            return
        try:
            with self._rights.bound({self._shards[n] for n in wave}):
                answers = await _publish(self._sink, [self._messages[n] for n in wave])
                for n, outcome in zip(wave, answers, strict=True):
                    self._outcomes[n] = outcome
        except Exception as error:  # noqa: BLE001 - `ended` raises or returns it
            self._error = self._error or error


async def _publish(sink: Sink, wave: Sequence[Message]) -> Sequence[Outcome]:
    answers = await sink.publish(wave)
    if len(answers) != len(wave):
        raise WrongAnswer(sink, expected=len(wave), actual=len(answers))
    return answers


def _queues(messages: Sequence[Message]) -> dict[str, deque[int]]:
    """The indexes of each key's messages, in order."""
    queues: dict[str, deque[int]] = {}
    for n, message in enumerate(messages):
        queues.setdefault(message.key, deque()).append(n)
    return queues


def _heads(queues: Iterable[deque[int]]) -> list[tuple[int, deque[int]]]:
    """Take the next index off each queue that has one."""
    return [(queue.popleft(), queue) for queue in queues if queue]
