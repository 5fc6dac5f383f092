"""A decorator for a sink that reports facts about each message to the hooks."""

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from dsql_outbox.observability.facts import (
    PublishConsequence,
    PublishEnded,
    PublishResult,
    PublishStarted,
)
from dsql_outbox.observability.hooks import Hook, Scopes, skips_successes
from dsql_outbox.outbox.errors import SettingsError, SinkUnavailable
from dsql_outbox.outbox.interrupt import is_being_cancelled
from dsql_outbox.outbox.message import TRACE_HEADERS, Message, broken_header
from dsql_outbox.publisher.settings import PublisherSettings
from dsql_outbox.publisher.sinks.port import (
    Answer,
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
)

from .sifter import Sifter

_RESULTS: dict[type[Outcome], PublishResult] = {
    Delivered: "delivered",
    Retry: "retry",
    Rejected: "rejected",
    Unavailable: "unavailable",
    NotAttempted: "not_attempted",
}


class TracedSink:
    """A sink that reports each message to hooks, and adds their trace context to its headers.

    It also checks the answers of the decorated sink. `settings` decide what follows a failed
    message, and `sifter`, which the sinks of a publisher share, which message an error is about.
    """

    def __init__(
        self,
        sink: Sink,
        hooks: Iterable[Hook],
        settings: PublisherSettings,
        sifter: Sifter | None = None,
    ) -> None:
        self._sink = sink
        self._sifter = sifter or Sifter()
        self._settings = settings
        self._hooks = tuple(hooks)
        self.system = sink.system
        self._destination: Destination = getattr(sink, "destination", Destination())

    @property
    def keeps_prefix(self) -> bool:
        """Whether the decorated sink does."""
        return keeps_prefix(self._sink)

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        """Publish through the decorated sink. Raises its errors.

        Raises `SettingsError` if a hook adds an invalid header. All messages would have it,
        so no message is at fault. Raises `WrongAnswer` if the sink breaks its contract;
        answers that were right stand.
        """
        quiet = Scopes(self._hooks, None) if all(map(skips_successes, self._hooks)) else None
        call = _TracedCall(messages, answer, quiet, self._settings)
        result: PublishResult = "not_attempted"
        text: str | None = None
        try:
            sent = messages
            if quiet is None:
                sent = [call.begin(message, self._start(message)) for message in messages]
            await self._publish(sent, call.answer)
        except BaseException as error:
            if isinstance(error, SinkUnavailable):
                result, text = "unavailable", str(error)
            else:
                text = type(error).__name__
            raise
        finally:
            call.end(result, text)
        if call.fault is not None:
            raise WrongAnswer(self._sink, *call.fault)

    async def _publish(self, messages: Sequence[Message], answer: Answer) -> None:
        try:
            await self._sifter.publish(self._sink, messages, answer)
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            raise SinkUnavailable("the sink awaited something that was cancelled") from error

    def _start(self, message: Message) -> Scopes:
        headers = message.headers
        place = self._destination
        return Scopes(
            self._hooks,
            PublishStarted(
                event_id=message.event_id,
                topic=message.topic,
                system=self.system,
                carrier={k: headers[k] for k in TRACE_HEADERS if k in headers},
                attempt=message.attempt,
                committed_ns=message.committed_ns,
                picked_up_ns=message.picked_up_ns,
                payload_bytes=len(message.payload),
                destination=place.name or "",
                server_address=place.host,
                server_port=place.port,
            ),
        )


class _TracedCall:
    """The messages of one call, with a scope for each that has no answer yet.

    `quiet` is the scope of all messages if no hook wants to know which are delivered.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        answer: Answer,
        quiet: Scopes | None,
        settings: PublisherSettings,
    ) -> None:
        self._messages = messages
        self._settings = settings
        self._answer = answer
        self._is_quiet = quiet is not None
        self._scopes: list[Scopes | None] = [quiet] * len(messages) if quiet is not None else []
        self._cut: set[str] = set()
        """The keys of the runs that ended before their last message."""
        self.fault: tuple[int, str] | None = None

    def begin(self, message: Message, scope: Scopes) -> Message:
        """The message to send, with the headers that the hooks add."""
        self._scopes.append(scope)
        return _with_headers(message, scope.carrier)

    def answer(self, index: int, outcome: Outcome) -> None:
        """Take the outcome of one message."""
        if not 0 <= index < len(self._scopes):
            self._note(index, f"is for none of {len(self._scopes)} messages")
        elif type(outcome) not in _RESULTS:
            self._note(index, f"is a {type(outcome).__name__}, which is no outcome")
        elif (scope := self._scopes[index]) is None:
            self._note(index, "is the second one")
        elif self._is_in_order(index, outcome):
            self._scopes[index] = None
            if not self._is_quiet or type(outcome) is not Delivered:
                error = getattr(outcome, "error", None)
                self._end(scope, index, _RESULTS[type(outcome)], error)
            self._answer(index, outcome)

    def _is_in_order(self, index: int, outcome: Outcome) -> bool:
        """Whether an answer is the next one of its run; those behind its end count for nothing."""
        key, is_delivered = self._messages[index].key, type(outcome) is Delivered
        if key in self._cut:
            if is_delivered:
                self._note(
                    index, "is Delivered, and that for a message before it in its run is not"
                )
            return False
        if index and self._messages[index - 1].key == key and self._scopes[index - 1] is not None:
            self._note(index, "came before that for the message before it in its run")
            return False
        if not is_delivered:
            self._cut.add(key)
        return True

    def end(self, result: PublishResult, error: str | None) -> None:
        """End the scopes of the messages without an answer; later answers count for nothing."""
        for index, scope in enumerate(self._scopes):
            if scope is not None:
                self._scopes[index] = None
                self._end(scope, index, result, error)
        self._answer = _ignore

    def _end(self, scope: Scopes, index: int, result: PublishResult, error: str | None) -> None:
        message = self._messages[index]
        ended = PublishEnded(
            message.event_id,
            message.topic,
            result,
            error,
            message.attempt,
            self._leads_to(message, result),
        )
        if error is None:
            scope(ended)
        else:
            with scope:  # the log line of a failure belongs to its trace
                scope(ended)

    def _leads_to(self, message: Message, result: PublishResult) -> PublishConsequence | None:
        if result == "delivered":
            return None
        if result in {"retry", "rejected"}:
            rules = self._settings.for_topic(message.topic)
            return rules.consequence(message.attempt, is_rejected=result == "rejected")
        return "retry"

    def _note(self, index: int, fault: str) -> None:
        if self.fault is None:
            self.fault = index, fault


def _ignore(_index: int, _outcome: Outcome) -> None:
    """Take an answer that comes too late."""


def _with_headers(message: Message, carrier: dict[str, str]) -> Message:
    if not carrier:
        return message
    if rule := broken_header(carrier):
        raise SettingsError(f"a hook of the publisher adds a header to every message: {rule}")
    return msgspec.structs.replace(message, headers=message.headers | carrier)
