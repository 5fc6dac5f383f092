"""A decorator for a sink that reports facts about each message to the hooks."""

from collections.abc import Iterable, Sequence

import msgspec

from dsql_outbox.observability import Hook, PublishEnded, PublishResult, PublishStarted, Scopes
from dsql_outbox.outbox import (
    TRACE_HEADERS,
    Message,
    SettingsError,
    SinkUnavailable,
    broken_header,
)
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Outcome, Rejected, Retry, Sink

_RESULTS: dict[type[Outcome], PublishResult] = {
    Delivered: "delivered",
    Retry: "retry",
    Rejected: "rejected",
    NotAttempted: "not_attempted",
}


class TracedSink:
    """A sink that reports each message to hooks, and adds their trace context to its headers."""

    def __init__(self, sink: Sink, hooks: Iterable[Hook]) -> None:
        self._sink = sink
        self._hooks = tuple(hooks)
        self.ordered = sink.ordered
        self.system = sink.system

    async def publish(self, messages: Sequence[Message], /) -> Sequence[Outcome]:
        """Publish through the decorated sink; raises what that raises.

        Raises `SettingsError` if a hook adds an invalid header. It would be in all
        messages, so no message is at fault.
        """
        scopes = [self._start(message) for message in messages]
        try:
            sent = [_with(message, s.carrier) for message, s in zip(messages, scopes, strict=True)]
            outcomes = await self._sink.publish(sent)
        except BaseException as error:
            down = isinstance(error, SinkUnavailable)
            for message, scope in zip(messages, scopes, strict=True):
                result: PublishResult = "unavailable" if down else "not_attempted"
                scope(_ended(message, result, str(error) if down else type(error).__name__))
            raise
        for message, scope, outcome in zip(messages, scopes, outcomes, strict=False):
            ended = _ended(message, _RESULTS[type(outcome)], getattr(outcome, "error", None))
            if ended.error is None:
                scope(ended)
            else:
                with scope:  # the log line of a failure belongs to its trace
                    scope(ended)
        return outcomes

    def _start(self, message: Message) -> Scopes:
        headers = message.headers
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
            ),
        )


def _with(message: Message, carrier: dict[str, str]) -> Message:
    if not carrier:
        return message
    if rule := broken_header(carrier):
        raise SettingsError(f"a hook of the publisher adds a header to every message: {rule}")
    return msgspec.structs.replace(message, headers=message.headers | carrier)


def _ended(message: Message, result: PublishResult, error: str | None) -> PublishEnded:
    return PublishEnded(message.event_id, message.topic, result, error, message.attempt)
