"""Facts about messages: every start has its end, and every answer is checked."""

from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from uuid import UUID

import anyio.lowlevel
import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import StatusCode
from tests.support.telemetry.skipping_hook import SkippingHook, TakingHook

from dsql_outbox.observability.facts import (
    CallEnded,
    CallStarted,
    Fact,
    PublishEnded,
    PublishStarted,
)
from dsql_outbox.observability.hooks import Hook
from dsql_outbox.observability.log_hook import LogFacts, log_facts
from dsql_outbox.observability.otel.spans import TraceFacts
from dsql_outbox.outbox import Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import (
    Answer,
    Delivered,
    NotAttempted,
    Outcome,
    PublisherSettings,
    Rejected,
    Retry,
    TopicSettings,
    Unavailable,
)
from dsql_outbox.publisher.relay.traced_sink import TracedSink
from dsql_outbox.publisher.sinks import WrongAnswer

pytestmark = pytest.mark.anyio

SETTINGS = PublisherSettings(
    attempts=2, topics={"topic.block": TopicSettings(on_dead_letter="block")}
)


class AnsweringSink:
    """Gives answers, then raises an error if there is one."""

    system = "memory"

    def __init__(self, *answers: tuple[int, Outcome], error: BaseException | None = None) -> None:
        self.answers = answers
        self.error = error
        self.sent: list[Message] = []
        self.answer: Answer | None = None

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        self.sent.extend(messages)
        self.answer = answer
        for index, outcome in self.answers:
            answer(index, outcome)
        if self.error is not None:
            raise self.error


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


def ended(scope: Carrying) -> list[PublishEnded]:
    return [fact for fact in scope.facts if isinstance(fact, PublishEnded)]


async def outcomes(sink: AnsweringSink, count: int, *hooks: Hook) -> dict[int, Outcome]:
    """The outcomes that arrive for messages 0, 1 .. of one call."""
    found: dict[int, Outcome] = {}
    messages = [message(n) for n in range(count)]
    await TracedSink(sink, hooks, SETTINGS).publish(messages, found.__setitem__)
    return found


def message(n: int, topic: str = "topic", attempt: int = 1) -> Message:
    headers = {"id": "x", "traceparent": "00-old"}
    return Message(UUID(int=n), topic, f"key-{n}", headers, b"{}", "dedupe", 1, 2, attempt)


async def test_each_message_is_told_with_its_own_outcome() -> None:
    answers: list[Outcome] = [
        Delivered(),
        Retry("no"),
        Rejected("never"),
        Unavailable("full"),
        NotAttempted(),
    ]
    scope = Carrying()
    sink = AnsweringSink(*enumerate(answers))
    left_out = {5: NotAttempted()}
    assert await outcomes(sink, 6, scope.hook) == dict(enumerate(answers)) | left_out
    assert [(f.event_id.int, f.result, f.error) for f in ended(scope)] == [
        (0, "delivered", None),
        (1, "retry", "no"),
        (2, "rejected", "never"),
        (3, "unavailable", "full"),
        (4, "not_attempted", None),
        (5, "not_attempted", None),  # it has no answer
    ]


async def test_a_failed_message_is_told_with_what_it_leads_to() -> None:
    answers = (
        Delivered(),
        Retry("no"),
        Retry("no"),
        Rejected("no"),
        Rejected("no"),
        NotAttempted(),
    )
    messages = [message(0), message(1), message(2, attempt=2), message(3)]
    messages += [message(4, "topic.block"), message(5)]
    scope = Carrying()
    sink = AnsweringSink(*enumerate(answers))
    await TracedSink(sink, [scope.hook], SETTINGS).publish(messages, lambda *_: None)
    told = ["retry", "dead_letter", "dead_letter", "block", "retry"]
    assert [fact.leads_to for fact in ended(scope)] == [None, *told]


async def test_an_answer_is_passed_on_when_it_is_given() -> None:
    seen: list[str] = []

    class Slow(AnsweringSink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            await super().publish(messages, answer)
            seen.append("the call ends")

    sink = Slow((1, Delivered()), (0, Retry("no")))
    await TracedSink(sink, [], SETTINGS).publish(
        [message(0), message(1)], lambda index, _: seen.append(f"answer for {index}")
    )
    assert seen == ["answer for 1", "answer for 0", "the call ends"]


@pytest.mark.parametrize(
    ("index", "outcome", "fault"),
    [
        (0, Delivered(), "for message 0 is the second one"),
        (2, Delivered(), "for message 2 is for none of 2 messages"),
        (-1, Delivered(), "for message -1 is for none of 2 messages"),
        (1, "yes", "for message 1 is a str, which is no outcome"),
    ],
)
async def test_a_wrong_answer_is_told_and_the_others_stand(
    index: int, outcome: Outcome, fault: str
) -> None:
    sink, scope = AnsweringSink((0, Delivered()), (index, outcome)), Carrying()
    answers: dict[int, Outcome] = {}
    traced = TracedSink(sink, [scope.hook], SETTINGS)
    with pytest.raises(WrongAnswer, match=f"AnsweringSink: its answer {fault}"):
        await traced.publish([message(0), message(1)], answers.__setitem__)
    assert answers == {0: Delivered(), 1: NotAttempted()}
    assert [f.result for f in ended(scope)] == ["delivered", "not_attempted"]


@pytest.mark.parametrize(
    ("answers", "fault", "taken"),
    [
        ([(0, Retry("no")), (1, Delivered())], "1 is Delivered, and that for a message before", 1),
        ([(0, Delivered()), (1, Rejected("no")), (2, Delivered())], "2 is Delivered, and that", 2),
        ([(1, Delivered())], "1 came before that for the message before it in its run", 1),
        ([(1, Retry("no")), (0, Delivered())], "1 came before that for the message before it", 2),
    ],
)
async def test_a_wrong_answer_in_a_run_is_told(
    answers: list[tuple[int, Outcome]], fault: str, taken: int
) -> None:
    found: dict[int, Outcome] = {}
    run = [msgspec.structs.replace(message(n), key="one") for n in range(3)]
    with pytest.raises(WrongAnswer, match=f"its answer for message {fault}"):
        await TracedSink(AnsweringSink(*answers), [], SETTINGS).publish(run, found.__setitem__)
    assert len(found) == taken


async def test_what_is_behind_the_end_of_a_run_was_not_attempted() -> None:
    scope, found = Carrying(), dict[int, Outcome]()
    sink = AnsweringSink((0, Delivered()), (1, Retry("no")), (2, Retry("no")), (4, Delivered()))
    messages = [msgspec.structs.replace(message(n), key="ab"[n // 4]) for n in range(5)]
    await TracedSink(sink, [scope.hook], SETTINGS).publish(messages, found.__setitem__)
    assert found == {0: Delivered(), 1: Retry("no"), 4: Delivered()}
    results = sorted((each.event_id.int, each.result) for each in ended(scope))
    assert [result for _, result in results] == [
        "delivered", "retry", "not_attempted", "not_attempted", "delivered"
    ]  # fmt: skip


async def test_an_answer_after_the_call_counts_for_nothing() -> None:
    sink, scope = AnsweringSink(), Carrying()
    answers = await outcomes(sink, 1, scope.hook)
    assert sink.answer is not None
    sink.answer(0, Delivered())
    assert answers == {0: NotAttempted()}
    assert [f.result for f in ended(scope)] == ["not_attempted"]


async def test_the_trace_goes_on_from_the_publish_span() -> None:
    sink, scope = AnsweringSink((0, Delivered())), Carrying()
    await outcomes(sink, 1, scope.hook)
    started = next(f for f in scope.facts if isinstance(f, PublishStarted))
    assert started.carrier == {"traceparent": "00-old"}
    assert sink.sent[0].headers == {"id": "x", "traceparent": "00-new"}


async def test_the_log_line_of_a_failure_is_in_the_trace_of_its_send(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hooks = [log_facts, TraceFacts(TracerProvider(shutdown_on_exit=False))]
    sink = AnsweringSink((0, Retry("no")), (1, Delivered()))
    await outcomes(sink, 2, *hooks)
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
        await outcomes(AnsweringSink((1, Delivered()), error=error), 3, scope.hook)
    results = {f.event_id.int: f.result for f in ended(scope)}
    assert results == {0: result, 1: "delivered", 2: result}


async def test_a_header_of_a_hook_that_no_broker_need_take_is_the_fault_of_no_message() -> None:
    scope, sink = Carrying(), AnsweringSink((0, Delivered()))
    scope.carrier = {"x user": "v"}
    with pytest.raises(SettingsError, match=r"hook of the publisher .* 'x user' is no token"):
        await outcomes(sink, 1, scope.hook)
    assert sink.sent == []
    assert [f.result for f in ended(scope)] == ["not_attempted"]


async def test_hooks_that_all_skip_deliveries_are_told_of_failures_only() -> None:
    skipping = SkippingHook()
    sink = AnsweringSink((0, Delivered()), (1, Retry("no")))
    assert await outcomes(sink, 2, skipping, log_facts) == {0: Delivered(), 1: Retry("no")}
    assert sink.sent == [message(0), message(1)]
    assert [type(fact) for fact in skipping.facts] == [PublishEnded]


async def test_a_hook_that_skips_deliveries_is_not_told_of_them_beside_one_that_does_not() -> None:
    skipping, other = SkippingHook(), Carrying()
    await outcomes(AnsweringSink((0, Delivered()), (1, Retry("no"))), 2, skipping, other.hook)
    both = [PublishStarted, PublishStarted, PublishEnded, PublishEnded]
    assert [type(fact) for fact in other.facts] == both
    assert [type(fact) for fact in skipping.facts] == [PublishEnded]


class Calls(TakingHook):
    """A hook that takes calls, and tells how they ended."""

    def ended(self) -> list[tuple[str, str, int]]:
        return [
            (fact.call.topic, fact.result, fact.messages)
            for fact in self.facts
            if isinstance(fact, CallEnded)
        ]


async def test_a_hook_that_takes_calls_is_told_of_topics_results_and_single_failures() -> None:
    calls, other = Calls(), Carrying()
    topics = ["a", "b", "a", "b", "a", "a"]
    attempts = [1, 1, 3, 2, 1, 1]
    messages = [
        msgspec.structs.replace(message(n, topic, attempt), committed_ns=1_000 - n, picked_up_ns=n)
        for n, (topic, attempt) in enumerate(zip(topics, attempts, strict=True))
    ]
    answers = [Delivered(), Delivered(), Delivered(), Retry("no"), Rejected("never")]
    sink = AnsweringSink(*enumerate(answers))
    await TracedSink(sink, [calls, other.hook], SETTINGS).publish(messages, lambda *_: None)
    started = [fact for fact in calls.facts if isinstance(fact, CallStarted)]
    assert started == [
        CallStarted("a", "memory", 4, 1, 995, 0),
        CallStarted("b", "memory", 2, 1, 999, 1),
    ]
    assert sorted(calls.ended()) == [
        ("a", "delivered", 2),
        ("a", "not_attempted", 1),
        ("a", "rejected", 1),
        ("b", "delivered", 1),
        ("b", "retry", 1),
    ]
    failed = [fact.result for fact in calls.facts if isinstance(fact, PublishEnded)]
    assert failed == ["retry", "rejected", "not_attempted"]
    kinds = Counter(type(fact) for fact in other.facts)
    assert kinds == {PublishStarted: 6, PublishEnded: 6}, "of every message, and of no call"


async def test_the_duration_of_a_result_ends_with_its_last_answer_and_not_with_the_call() -> None:
    class Slow(AnsweringSink):
        async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
            self.sent.extend(messages)
            answer(0, Delivered())
            answer(1, Delivered())
            self.early = perf_counter()
            while perf_counter() == self.early:
                await anyio.lowlevel.checkpoint()
            self.late = perf_counter()
            answer(2, Retry("late"))

    calls, sink = Calls(), Slow()
    began = perf_counter()
    await outcomes(sink, 3, calls)
    took = {f.result: f.duration_s for f in calls.facts if isinstance(f, CallEnded)}
    assert 0 <= took["delivered"] <= sink.early - began
    assert sink.late - sink.early <= took["retry"] - took["delivered"]


@pytest.mark.parametrize(
    ("error", "result"),
    [(SinkUnavailable("down"), "unavailable"), (RuntimeError("bug"), "not_attempted")],
)
async def test_a_call_that_raises_counts_what_has_no_answer(error: Exception, result: str) -> None:
    calls = Calls()
    with pytest.raises(type(error)):
        await outcomes(AnsweringSink((1, Delivered()), error=error), 8, calls)
    assert calls.ended() == [("topic", "delivered", 1), ("topic", result, 7)]


def of_trace(n: int, flags: str) -> Message:
    parent = {"traceparent": f"00-{n + 1:032x}-{7:016x}-{flags}"} if flags else {}
    return msgspec.structs.replace(message(n), headers={"id": "x"} | parent)


class Traced:
    """A tracer provider of its own with this sampler, and its spans."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._spans = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.hook = TraceFacts(provider)

    def published(self) -> dict[int, ReadableSpan]:
        """The spans of publishes, by event."""
        return {
            UUID(str((span.attributes or {})["outbox.event.id"])).int: span
            for span in self._spans.get_finished_spans()
            if span.name.startswith("publish")
        }


FLAGS = ["01", "00", "", "01", "00", "00"]


async def test_only_messages_of_sampled_writes_and_of_none_have_a_span(
    caplog: pytest.LogCaptureFixture,
) -> None:
    traced, calls = Traced(), Calls()
    sink = AnsweringSink(*enumerate([*[Delivered()] * 3, Retry("no"), Rejected("no"), Delivered()]))
    messages = [of_trace(n, flags) for n, flags in enumerate(FLAGS)]
    hooks = [LogFacts(), traced.hook, calls]
    await TracedSink(sink, hooks, SETTINGS).publish(messages, lambda *_: None)
    spans = traced.published()
    assert sorted(spans) == [0, 2, 3]
    for n in (0, 3):
        parent = spans[n].parent
        assert parent is not None
        assert (parent.trace_id, parent.span_id) == (n + 1, 7), "a child of its write"
    assert spans[2].parent is None, "the sampler decides for a row without a trace"
    assert spans[3].status.status_code is StatusCode.ERROR
    for n in (1, 4, 5):
        assert sink.sent[n] is messages[n], "it keeps the trace context of its row"
    for n in (0, 2, 3):
        found = spans[n].get_span_context()
        assert found is not None
        assert sink.sent[n].headers["traceparent"].split("-")[2] == f"{found.span_id:016x}"
    told = {vars(record)["event_id"]: vars(record)["trace_id"] for record in caplog.records}
    assert told == {str(UUID(int=3)): f"{4:032x}", str(UUID(int=4)): f"{5:032x}"}


@pytest.mark.parametrize(
    ("sampler", "recorded"),
    [
        (ParentBased(ALWAYS_ON), [0, 2, 3]),
        (ParentBased(ALWAYS_OFF), [0, 3]),
        (ParentBased(ALWAYS_OFF, remote_parent_not_sampled=ALWAYS_ON), [0, 1, 3, 4, 5]),
        (ALWAYS_ON, [0, 1, 2, 3, 4, 5]),
        (ALWAYS_OFF, []),
    ],
    ids=lambda value: str(value.get_description() if isinstance(value, Sampler) else ""),
)
async def test_the_sampler_of_the_provider_decides(sampler: Sampler, recorded: list[int]) -> None:
    traced = Traced(sampler)
    sink = AnsweringSink(*[(n, Delivered()) for n in range(6)])
    messages = [of_trace(n, flags) for n, flags in enumerate(FLAGS)]
    await TracedSink(sink, [traced.hook], SETTINGS).publish(messages, lambda *_: None)
    assert sorted(traced.published()) == recorded


async def test_a_hook_that_wants_every_message_is_told_of_those_without_a_span_too() -> None:
    traced, other = Traced(), Carrying()
    other.carrier = {"user": "v"}
    sink = AnsweringSink((0, Delivered()), (1, Delivered()))
    messages = [of_trace(0, "00"), of_trace(1, "01")]
    hooks = [traced.hook, other.hook]
    await TracedSink(sink, hooks, SETTINGS).publish(messages, lambda *_: None)
    assert [sent.headers["user"] for sent in sink.sent] == ["v", "v"]
    assert [type(fact) for fact in other.facts].count(PublishStarted) == 2
    assert sorted(traced.published()) == [1]
