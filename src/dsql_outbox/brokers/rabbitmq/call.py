"""The messages of one call of the sink, on their way to RabbitMQ."""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from aiormq.channel import Channel
from aiormq.exceptions import ChannelClosed, ChannelInvalidStateError, DeliveryError, PublishError

from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Answer, Delivered, Outcome, Rejected, Unavailable

from .confirmation import is_for_all, outcome_of, outcome_of_closing, silence
from .connection import RabbitMqClient
from .doubts import Doubts
from .envelope import Unfit, envelope
from .url import RabbitMqSettings

_WINDOW: Final = 128
"""The most messages of a call that are on their way; the next ones follow when all are answered.

So many may be stored twice if RabbitMQ closes the channel for one of them.
"""

_ALONE: Final = 8
"""The most messages that go alone at a time."""

_DELIVERED: Final = Delivered()


class RabbitMqCall:
    """Sends messages on channels, and reads each answer.

    RabbitMQ closes a channel for one message that it refuses, and answers for no other message
    that is on its way there. These are sent again one by one, so that the next closing is that of
    one message. RabbitMQ may also be stuck in a message, and then answers for none behind it. So
    the messages of topics in `doubts` go alone from the beginning: some at a time, each on a
    channel of its own.
    """

    def __init__(
        self,
        client: RabbitMqClient,
        settings: RabbitMqSettings,
        doubts: Doubts,
        messages: Sequence[Message],
        answer: Answer,
    ) -> None:
        self._client = client
        self._settings = settings
        self._doubts = doubts
        self._messages = messages
        self._answer = answer
        self._unanswered = set(range(len(messages)))
        self._has_nacks = False

    async def run(self) -> None:
        """Send and answer; ends within three times the timeout.

        Raises `SinkUnavailable` when the connection is lost, blocked, or silent.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.given.timeout
        alone = [n for n, message in enumerate(self._messages) if self._doubts.has(message.topic)]
        together = sorted(self._unanswered.difference(alone))
        windows = [together[n : n + _WINDOW] for n in range(0, len(together), _WINDOW)]
        singles = [[index] for index in alone]
        # A step has messages for several channels.
        steps = deque[Sequence[Sequence[int]]]([window] for window in windows)
        steps.extend(singles[n : n + _ALONE] for n in range(0, len(singles), _ALONE))
        try:
            while steps and asyncio.get_running_loop().time() < deadline:
                step = [left for each in steps.popleft() if (left := self._to_send(each))]
                for sent, closing in zip(step, await self._send_all(step), strict=True):
                    if closing is not None:
                        steps.extendleft([[index]] for index in self._left_by(closing, sent))
        finally:
            self._unanswered.clear()  # an answer that comes later is ignored

    def _to_send(self, indexes: Iterable[int]) -> list[int]:
        """Those without an answer, which may be sent. Answers for those that may not."""
        left = [index for index in indexes if index in self._unanswered]
        forbidden = [index for index in left if self._doubts.forbids(self._messages[index])]
        self._note_silence(forbidden)
        return [index for index in left if index in self._unanswered]

    async def _send_all(self, step: Sequence[Sequence[int]]) -> list[ChannelClosed | None]:
        """Send messages on a channel for each sequence; returns what `_send` does for each."""
        if len(step) == 1:
            return [await self._send(step[0])]
        ends = await asyncio.gather(*map(self._send, step), return_exceptions=True)
        closings: list[ChannelClosed | None] = []
        for end in ends:
            if end is not None and not isinstance(end, ChannelClosed):
                raise end
            closings.append(end)
        return closings

    def _left_by(self, closing: ChannelClosed, step: Sequence[int]) -> list[int]:
        """Answer for those of a step that RabbitMQ refused. Returns those that must go alone."""
        left = [index for index in step if index in self._unanswered]
        if len(left) > 1 and not is_for_all(closing):
            return left
        self._refuse(left, closing)
        return []

    async def _send(self, indexes: Sequence[int]) -> ChannelClosed | None:
        """Send messages on one channel. Returns why RabbitMQ closed it, if it did."""
        client, channel = self._client, await self._client.take()
        sent = {client.spawn(self._publish(channel, index)): index for index in indexes}
        try:
            _, waiting = await asyncio.wait(sent, timeout=self._settings.given.timeout)
        except asyncio.CancelledError:
            client.end_soon(channel, sent)
            raise
        if client.is_lost and not self._unanswered.isdisjoint(indexes):
            raise client.lost()
        if waiting:
            ending = await client.end(channel, sent)
            silent = [index for index in indexes if index in self._unanswered]
            self._doubts.add(self._messages[index].topic for index in silent)
            if ending is not None and len(indexes) > 1:
                return None  # it is stuck in one of them, and nothing is known of the others
            if ending is not None:
                self._doubts.note_stuck(self._messages[indexes[0]], ending)
            self._note_silence(silent)
            return None
        if self._has_nacks:
            # For a channel, a quorum queue that was full is full until it is read, even if an
            # operator has raised its limit meanwhile. A new channel asks it.
            client.end_soon(channel, sent)
        else:
            client.release(channel)
        return _closing(sent)

    async def _publish(self, channel: Channel, index: int) -> None:
        message, settings = self._messages[index], self._settings
        try:
            await channel.basic_publish(
                message.payload,
                exchange=settings.given.exchange,
                routing_key=message.topic,
                properties=envelope(message, self._client.frame_max),
                mandatory=settings.given.mandatory,
                wait=False,
            )
        except Unfit as error:
            self._settle(index, Rejected(str(error)))
        except DeliveryError as error:
            self._has_nacks |= not isinstance(error, PublishError)
            self._settle(index, outcome_of(error, message.topic, settings.place))
        else:
            self._settle(index, _DELIVERED)

    def _settle(self, index: int, outcome: Outcome) -> None:
        if index not in self._unanswered:
            return
        self._unanswered.discard(index)
        if outcome is _DELIVERED:
            self._doubts.note_taken(self._messages[index].topic)
        self._answer(index, outcome)

    def _refuse(self, indexes: Collection[int], closing: ChannelClosed) -> None:
        """Answer for the messages that RabbitMQ refused, and for all others of their topics."""
        outcome = outcome_of_closing(closing)
        for index in indexes:
            self._settle(index, outcome)
        if not isinstance(outcome, Unavailable) or is_for_all(closing):
            return
        topics = {self._messages[index].topic for index in indexes}
        self._doubts.add(topics)
        for index in sorted(self._unanswered):
            if self._messages[index].topic in topics:
                self._settle(index, outcome)

    def _note_silence(self, indexes: Iterable[int]) -> None:
        """Answer for messages that RabbitMQ does not confirm, although it answers."""
        for index in indexes:
            topic = self._messages[index].topic
            self._settle(index, silence(topic, self._settings.given.timeout))


def _closing(sent: Iterable[asyncio.Task[None]]) -> ChannelClosed | None:
    """Why RabbitMQ closed the channel of these messages, if it did. Raises any other error."""
    errors = [error for task in sent if not task.cancelled() and (error := task.exception())]
    for error in errors:
        if isinstance(error, ChannelClosed):
            return error
    for error in errors:
        if not isinstance(error, ChannelInvalidStateError):  # of a channel that was closed before
            raise error
    return None
