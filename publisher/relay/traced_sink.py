"""A decorator for a sink that reports facts about messages and calls to the hooks."""

import asyncio
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Final

import msgspec

from dsql_outbox.observability.facts import (
    CallEnded,
    CallStarted,
    PublishConsequence,
    PublishEnded,
    PublishResult,
    PublishStarted,
)
from dsql_outbox.observability.hooks import Hook, Listeners, Scopes, emit
from dsql_outbox.outbox.errors import SettingsError, SinkUnavailable
from dsql_outbox.outbox.interrupt import is_being_cancelled
from dsql_outbox.outbox.message import TRACE_HEADERS, Message, broken_header
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.port import (
    Answer,
    Deferred,
    Delivered,
    Destination,
    NotAttempted,
    Outcome,
    Rejected,
    Retry,
    Sink,
    Unavailable,
    WrongAnswer,
    keeps_prefix,
    takes,
)

from .answers import Answers
from .receipt_watch import ReceiptWatch
from .sifter import Sifter

_RESULTS: dict[type[Outcome], PublishResult] = {
    Delivered: "delivered",
    Retry: "retry",
    Rejected: "rejected",
    Unavailable: "unavailable",
    Deferred: "deferred",
    NotAttempted: "not_attempted",
}

_QUIET: Final = Scopes((), None)
"""The scope of the messages of which no hook was told."""


class TracedSink:
    """A sink that reports messages and calls to hooks, and adds their trace context to headers.

    It also raises the fault of a wrong answer. `settings` decide what follows a failed message, and
    `sifter`, which the sinks of a publisher share, which message an error is about.
    So do they share `receipts`, which is told what was delivered.
    """

    def __init__(
        self,
        sink: Sink,
        hooks: Iterable[Hook],
        settings: PublisherSettings,
        sifter: Sifter | None = None,
        receipts: ReceiptWatch | None = None,
    ) -> None:
        self._sink = sink
        self._receipts = receipts or ReceiptWatch()
        self._receipts.note_open(sink)
        self._sifter = sifter or Sifter()
        self._settings = settings
        self._hooks = tuple(hooks)
        self.system = sink.system
        self._facts = _Beginnings(sink.system, getattr(sink, "destination", Destination()))

    @property
    def keeps_prefix(self) -> bool:
        """Whether the decorated sink does."""
        return keeps_prefix(self._sink)

    @property
    def takes(self) -> Container[type]:
        """What the decorated sink takes beyond bytes."""
        return takes(self._sink)

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Publish through the decorated sink. Raises its errors.

        Raises `SettingsError` if a hook adds an invalid header. All messages would have it,
        so no message is at fault. Raises `WrongAnswer` if the sink breaks its contract;
        answers that were right stand.
        """
        answers = answer if isinstance(answer, Answers) else Answers(messages, answer)
        call = _TracedCall(messages, answers, Listeners(self._hooks), self._facts, self._settings)
        result: PublishResult = "not_attempted"
        text: str | None = None
        try:
            await self._publish(call.begin(), answers)
        except BaseException as error:
            if isinstance(error, SinkUnavailable):
                result, text = "unavailable", str(error)
            else:
                text = type(error).__name__
            raise
        finally:
            call.end(result, text)
            self._receipts.note_delivered(call.delivered)
        if answers.fault is not None:
            raise WrongAnswer(self._sink, *answers.fault)

    async def _publish(self, messages: Sequence[Message], answers: Answers) -> None:
        try:
            await self._sifter.publish(self._sink, messages, answers)
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            raise SinkUnavailable("the sink awaited something that was cancelled") from error


class _Beginnings:
    """Makes the facts about what begins; they name the place that a sink sends to."""

    def __init__(self, system: str, place: Destination) -> None:
        self._system = system
        self._place = place.name or "", place.host, place.port

    def message(self, message: Message, carrier: Mapping[str, str]) -> PublishStarted:
        """The start of a message with this trace context."""
        return PublishStarted(
            message.event_id,
            message.topic,
            self._system,
            carrier,
            message.attempt,
            message.committed_ns,
            message.picked_up_ns,
            len(message.payload),
            *self._place,
        )

    def calls(self, messages: Sequence[Message]) -> dict[str, CallStarted]:
        """The start of the call of some messages, by topic."""
        by_topic = defaultdict[str, list[Message]](list)
        for message in messages:
            by_topic[message.topic].append(message)
        return {topic: self._call(topic, found) for topic, found in by_topic.items()}

    def _call(self, topic: str, messages: Sequence[Message]) -> CallStarted:
        first = [message.committed_ns for message in messages if message.attempt == 1]
        return CallStarted(
            topic,
            self._system,
            len(messages),
            len(messages) - len(first),
            min(first, default=None),
            messages[0].picked_up_ns,
            *self._place,
        )


class _Tally:
    """How many messages of a call had which result, per topic, for the hooks that take calls."""

    def __init__(self, hooks: Iterable[Hook], started: Mapping[str, CallStarted]) -> None:
        self._hooks = hooks
        self._started = started
        self._ended: dict[tuple[str, PublishResult], list[float]] = {}
        """The number of messages, and the time of the last one."""
        for fact in started.values():
            emit(hooks, fact)
        self._began = perf_counter()

    def count(self, topic: str, result: PublishResult) -> None:
        """Count a message."""
        ended = self._ended.get((topic, result))
        if ended is None:
            ended = self._ended[topic, result] = [0, 0.0]
        ended[0] += 1
        ended[1] = perf_counter()

    def tell(self) -> None:
        """Tell the hooks, at the end of the call."""
        for (topic, result), (number, at) in self._ended.items():
            fact = CallEnded(self._started[topic], result, int(number), at - self._began)
            emit(self._hooks, fact)


class _TracedCall:
    """The messages of one call, with a scope for each.

    A message that no hook wants to know of, unless it fails, has the scope `_QUIET`.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        answers: Answers,
        listeners: Listeners,
        facts: _Beginnings,
        settings: PublisherSettings,
    ) -> None:
        self._messages = messages
        self._settings = settings
        self._answers = answers
        answers.told = self._tell
        self._listeners = listeners
        self._facts = facts
        self._scopes: list[Scopes] = []
        self._tally: _Tally | None = None
        self.delivered: set[str] = set()
        """The topics of delivered messages."""

    def begin(self) -> Sequence[Message]:
        """Tell the hooks. Returns the messages to send, with the headers that the hooks add."""
        listeners, messages = self._listeners, self._messages
        if listeners.calls:
            self._tally = _Tally(listeners.calls, self._facts.calls(messages))
        if not listeners.messages:
            self._scopes = [_QUIET] * len(messages)
            return messages
        return list(map(self._begin, messages))

    def _begin(self, message: Message) -> Message:
        carrier = _carrier(message)
        if self._listeners.skip(carrier):
            self._scopes.append(_QUIET)
            return message
        scope = Scopes(self._listeners.messages, self._facts.message(message, carrier))
        self._scopes.append(scope)
        return _with_headers(message, scope.carrier)

    def _tell(self, index: int, outcome: Outcome) -> None:
        self._end(index, _RESULTS[type(outcome)], getattr(outcome, "error", None))

    def end(self, result: PublishResult, error: str | None) -> None:
        """End the scopes of the messages without an answer; not all have one if a hook failed."""
        for index in self._answers.missing()[: len(self._scopes)]:
            self._end(index, result, error)
        if self._tally is not None:
            self._tally.tell()

    def _end(self, index: int, result: PublishResult, error: str | None) -> None:
        message, scope = self._messages[index], self._scopes[index]
        if self._tally is not None:
            self._tally.count(message.topic, result)
        if result != "delivered":
            self._tell_failure(scope, message, result, error)
            return
        self.delivered.add(message.topic)
        if scope is not _QUIET:
            scope(PublishEnded(message.event_id, message.topic, result, attempt=message.attempt))

    def _tell_failure(
        self, scope: Scopes, message: Message, result: PublishResult, error: str | None
    ) -> None:
        listeners = self._listeners
        if scope is _QUIET and listeners.messages:
            started = self._facts.message(message, _carrier(message))
            scope = Scopes(listeners.messages, started)
        leads_to = self._leads_to(message, result)
        ended = PublishEnded(
            message.event_id, message.topic, result, error, message.attempt, leads_to
        )
        with scope:  # the log line of a failure belongs to its trace
            scope(ended)
            emit(listeners.others, ended)

    def _leads_to(self, message: Message, result: PublishResult) -> PublishConsequence:
        if result in {"retry", "rejected"}:
            rules = self._settings.for_topic(message.stored_topic or message.topic)
            return rules.consequence(message.attempt, is_rejected=result == "rejected")
        return "retry"


def _carrier(message: Message) -> dict[str, str]:
    """The trace context of a message."""
    headers = message.headers
    return {name: headers[name] for name in TRACE_HEADERS if name in headers}


def _with_headers(message: Message, carrier: dict[str, str]) -> Message:
    if not carrier:
        return message
    if rule := broken_header(carrier):
        raise SettingsError(f"a hook of the publisher adds a header to every message: {rule}")
    return msgspec.structs.replace(message, headers=message.headers | carrier)
