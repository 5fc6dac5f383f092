"""Of a call of the sink that raises, find the messages that are the reason.

A sink may raise for a single message, for example because its mapping meets a value that it does
not expect. The error comes from the call as a whole, as it does in an outage. So the rest of such
a call is sent again in smaller calls. If one message raises alone, while others get through, it has
failed, and nothing else has. If nothing gets through, the error is that of the sink.
"""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Final

from dsql_outbox.outbox.errors import OutboxError
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.first_errors import FirstErrors
from dsql_outbox.publisher.sinks.kept_sink import raised_by_sink
from dsql_outbox.publisher.sinks.port import Outcome, Retry, Sink

from .answers import Answers

_MOST: Final = 5
"""The most calls in a row that raise and deliver nothing, before the rest is not attempted."""

_SUSPECTS: Final = 1_000
"""The most messages that are remembered because they raised alone."""


class Sifter:
    """Calls the sinks of one publisher, and knows which messages raised alone.

    A raise has a number. A call that began after it and delivered something shows that the sink
    works, so that who raised first, and raises alone now, is at fault.
    """

    def __init__(self) -> None:
        self._raises = 0
        """The number of the last raise that was no message's failure."""
        self._works_after = 0
        """The last one of them after which a call began that delivered something."""
        self._suspects: dict[str, int] = {}
        """The dedupe ids of messages that raised alone, with the number of their first raise."""
        self._kinds: set[str] = set()
        """The kinds of errors for which a message was at fault."""
        self._first = FirstErrors()

    async def publish(self, sink: Sink, messages: Sequence[Message], answers: Answers) -> None:
        """Publish as `Sink.publish`. Raises the errors of the sink that are no message's failure.

        The answer for a message that made the sink raise is `Retry`, with the name of the error's
        class, since its text may quote the message.
        """
        if not messages:
            await sink.publish(messages, answers)
            return
        call = _SiftedCall(messages, answers, self._suspects)
        in_a_row = 0
        while now := call.take():
            began = self._raises
            error = await call.send(sink, now)
            if answers.has_delivered(now):
                self._works_after, in_a_row = max(self._works_after, began), 0
            if error is None:
                call.go_on(now)
                continue
            alone = now[0] if len(now) == len(answers.waiting(now)) == 1 else None
            if alone is not None:
                kind = str(raised_by_sink(error))
                first = call.raised.get(alone)
                if await self._is_at_fault(sink, messages[alone], kind, first):
                    self._fail(messages[alone], error)
                    answers(alone, Retry(kind))
                    continue
            self._raises, in_a_row = self._raises + 1, in_a_row + 1
            if alone is not None:
                self._suspect(messages[alone], self._raises)
            if not call.put_back(now, self._raises) or in_a_row == _MOST:
                raise error

    async def _is_at_fault(
        self, sink: Sink, message: Message, kind: str, first: int | None
    ) -> bool:
        """Whether a message that raised alone has failed: the sink worked since its `first` raise.

        If no other message was sent since, it is asked whether it works. That is too little for
        the first error of a kind, or a sink that can map nothing would fail every message.
        """
        first = self._suspects.get(message.dedupe_id, first)
        if first is not None and first <= self._works_after:
            return True
        if message.attempt == 1 and kind not in self._kinds:
            return False
        try:
            await sink.publish([], _ignore)
        except Exception:  # noqa: BLE001 - whatever it is, the sink does not work
            return False
        return True

    def _fail(self, message: Message, error: Exception) -> None:
        self._suspect(message, self._works_after)
        kind = raised_by_sink(error)
        self._kinds.add(str(kind))
        text = "Event %s fails, since %s when it was sent alone (later ones are not logged)"
        self._first.log(text, kind, error, message.event_id)

    def _suspect(self, message: Message, number: int) -> None:
        if len(self._suspects) >= _SUSPECTS:
            self._suspects.clear()
        self._suspects.setdefault(message.dedupe_id, number)


def _ignore(_index: int, _outcome: Outcome) -> None:
    """Take an answer to a call without messages, which has none."""


class _SiftedCall:
    """The messages of one call that wait, and how many of them are sent next."""

    def __init__(
        self, messages: Sequence[Message], answers: Answers, suspects: Mapping[str, int]
    ) -> None:
        self._messages = messages
        self._answers = answers
        self._waiting = [*range(len(messages))]
        self._length = len(messages)
        self.raised: dict[int, int] = {}
        """The messages that were in a part that raised, with the number of the first raise."""
        self._alone: set[int] = set()
        if suspects:
            # A suspect that is sent again has failed, so it is the only message of its key.
            self._alone = {
                index
                for index, message in enumerate(messages)
                if message.attempt > 1 and message.dedupe_id in suspects
            }
            self._waiting.sort(key=self._alone.__contains__)

    def take(self) -> list[int]:
        """The messages to send now; none: all were sent."""
        self._waiting = self._answers.waiting(self._waiting)
        now = self._waiting[: self._length]
        if self._alone:
            now = list(takewhile(lambda index: index not in self._alone, now)) or now[:1]
        del self._waiting[: len(now)]
        return now

    async def send(self, sink: Sink, indexes: Sequence[int]) -> Exception | None:
        """Send some messages. Returns what the sink raised, unless the error is one of ours."""
        is_over = False

        def answer(index: int, outcome: Outcome) -> None:
            if is_over:
                return
            if 0 <= index < len(indexes):
                index = indexes[index]
            elif index >= 0:  # it must not become the index of another message
                index = max(index, len(self._messages))
            self._answers(index, outcome)

        try:
            await sink.publish([self._messages[index] for index in indexes], answer)
        except OutboxError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a sink raises may be about one message
            return error
        finally:
            is_over = True
        return None

    def go_on(self, sent: Sequence[int]) -> None:
        """Send more at a time after a part that did not raise. What it left out ends its run."""
        self._answers.end_runs(sent)
        self._length *= 2

    def put_back(self, sent: Sequence[int], number: int) -> bool:
        """Send what has no outcome again, one by one at first. Returns whether that makes sense.

        A single message waits, with the rest of its run, until the others were sent.
        """
        rest, waiting = self._answers.waiting(sent), self._waiting
        for index in rest:
            self.raised.setdefault(index, number)
        self._length = 1
        if len(sent) > 1 or not rest:
            self._waiting = [*rest, *waiting]
            return bool(rest)
        key = self._messages[rest[0]].key
        run = [index for index in waiting if self._messages[index].key == key]
        others = [index for index in waiting if self._messages[index].key != key]
        self._waiting = [*others, *rest, *run]
        return bool(others)
