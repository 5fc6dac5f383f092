"""Facts about messages: every start has its end, whatever the sink does."""

from collections.abc import Sequence
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import TracerProvider

from dsql_outbox.observability import Fact, PublishEnded, PublishStarted, TraceFacts, log_facts
from dsql_outbox.outbox import Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import Delivered, NotAttempted, Outcome, Rejected, Retry
from dsql_outbox.publisher.relay.traced_sink import TracedSink

pytestmark = pytest.mark.anyio


class AnsweringSink:
    ordered = True
    system = "memory"

    def __init__(self, answer: list[Outcome] | BaseException) -> None:
        self.answer = answer
        self.sent: list[Message] = []

    async def publish(self, messages: Sequence[Message], /) -> list[Outcome]:
        self.sent.extend(messages)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Carrying:
    """A hook whose scope sends a header along and keeps what it is told."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.carrier = {"traceparent": "00-new"}

    def hook(self, fact: Fact) -> "Carrying | None":
        self.facts.append(fact)
        return self if isinstance(fact, PublishStarted) else None

    def __call__(self, fact: Fact) -> None:
        self.facts.append(fact)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def message(n: int) -> Message:
    headers = {"id": "x", "traceparent": "00-old"}
    return Message(UUID(int=n), "topic", f"key-{n}", headers, b"{}", "dedupe", 1, 2)


async def test_each_message_is_told_with_its_own_outcome() -> None:
    answers: list[Outcome] = [Delivered(), Retry("no"), Rejected("never"), NotAttempted()]
    scope = Carrying()
    outcomes = await TracedSink(AnsweringSink(answers), [scope.hook]).publish(
        [message(n) for n in range(4)]
    )
    assert outcomes == answers
    ended = [f for f in scope.facts if isinstance(f, PublishEnded)]
    assert [(f.event_id.int, f.result, f.error) for f in ended] == [
        (0, "delivered", None),
        (1, "retry", "no"),
        (2, "rejected", "never"),
        (3, "not_attempted", None),
    ]


async def test_the_trace_goes_on_from_the_publish_span() -> None:
    sink, scope = AnsweringSink([Delivered()]), Carrying()
    await TracedSink(sink, [scope.hook]).publish([message(1)])
    started = next(f for f in scope.facts if isinstance(f, PublishStarted))
    assert started.carrier == {"traceparent": "00-old"}
    assert sink.sent[0].headers == {"id": "x", "traceparent": "00-new"}


async def test_the_log_line_of_a_failure_is_in_the_trace_of_its_send(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hooks = [log_facts, TraceFacts(TracerProvider(shutdown_on_exit=False))]
    sink = AnsweringSink([Retry("no"), Delivered()])
    await TracedSink(sink, hooks).publish([message(1), message(2)])
    (record,) = caplog.records
    _, trace_id, span_id, _ = sink.sent[0].headers["traceparent"].split("-")
    assert (vars(record)["trace_id"], vars(record)["span_id"]) == (trace_id, span_id)


@pytest.mark.parametrize(
    ("error", "result"),
    [(SinkUnavailable("down"), "unavailable"), (RuntimeError("bug"), "not_attempted")],
)
async def test_a_sink_that_raises_ends_what_was_started(error: Exception, result: str) -> None:
    scope = Carrying()
    with pytest.raises(type(error)):
        await TracedSink(AnsweringSink(error), [scope.hook]).publish([message(1), message(2)])
    ended = [f.result for f in scope.facts if isinstance(f, PublishEnded)]
    assert ended == [result, result]


async def test_a_header_of_a_hook_that_no_broker_need_take_is_the_fault_of_no_message() -> None:
    scope, sink = Carrying(), AnsweringSink([Delivered()])
    scope.carrier = {"x user": "v"}
    with pytest.raises(SettingsError, match=r"hook of the publisher .* 'x user' is no token"):
        await TracedSink(sink, [scope.hook]).publish([message(1)])
    assert sink.sent == []
    (ended,) = [fact for fact in scope.facts if isinstance(fact, PublishEnded)]
    assert ended.result == "not_attempted"
