"""What must hold of the trace of an event that conflicted, was relayed and consumed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dsql_outbox.cli.demo.span_tree import SpanView
from dsql_outbox.observability import attributes as names

_CLOCK = 1_000_000  # nanoseconds: times go through microseconds, and two processes


class Check(NamedTuple):
    """What must hold, and whether it does."""

    text: str
    held: bool


def checks(trace: Sequence[SpanView], conflicts: int) -> Iterator[Check]:
    """Everything that must hold of one trace's spans."""
    by_start = sorted(trace, key=lambda span: span.start_ns)
    writes = _named(by_start, "outbox.write")
    attempts = [span for span in by_start if names.ATTEMPT_NUMBER in span.attributes]
    waits = _named(by_start, "outbox.wait")
    sends = [span for span in by_start if span.kind == "PRODUCER"]
    takes = [span for span in by_start if span.kind == "CONSUMER"]
    outcomes = [span.attributes.get(names.ATTEMPT_OUTCOME) for span in attempts]
    yield Check(
        f"{conflicts} conflicts, then committed",
        outcomes == ["conflict"] * conflicts + ["committed"],
    )
    one_each = [len(found) for found in (writes, waits, sends, takes)] == [1] * 4
    yield Check("one write, one wait, one publish, one consumer", one_each)
    if not one_each or len(attempts) != conflicts + 1:
        return
    (write,), (wait,), (send,), (take,) = writes, waits, sends, takes
    parents = {span.parent_id for span in (*attempts, wait, send)}
    yield Check("attempts, wait and publish are the write's", parents == {write.span_id})
    yield Check("the consumer's span is the publish's", take.parent_id == send.span_id)
    yield Check("the write has no parent", write.parent_id is None)
    yield Check("conflicts are marked with 40001 and OC000", all(map(_is_marked, attempts[:-1])))
    yield Check(
        "attempts are numbered from 1",
        [s.attributes[names.ATTEMPT_NUMBER] for s in attempts] == [*range(1, conflicts + 2)],
    )
    yield Check(
        "the gap before a retry is the wait it states, 100 ms and more",
        all(map(_waited, attempts, attempts[1:], range(conflicts))),
    )
    yield Check(
        "the write spans its attempts",
        write.start_ns <= attempts[0].start_ns and attempts[-1].end_ns <= write.end_ns + _CLOCK,
    )
    yield Check(
        "the wait begins at the commit",
        attempts[-1].start_ns - _CLOCK <= wait.start_ns <= attempts[-1].end_ns + _CLOCK,
    )
    yield Check(
        "wait, publish and consumer follow each other",
        wait.end_ns <= send.start_ns + _CLOCK and send.start_ns <= take.start_ns + _CLOCK,
    )
    yield Check(
        "no span ends before it starts", all(span.start_ns <= span.end_ns for span in trace)
    )


def _named(spans: Sequence[SpanView], name: str) -> list[SpanView]:
    return [span for span in spans if span.name == name]


def _is_marked(span: SpanView) -> bool:
    codes = (span.attributes.get(names.DB_STATUS_CODE), span.attributes.get(names.ATTEMPT_OC_CLASS))
    return span.failed and codes == ("40001", "OC000")


def _waited(before: SpanView, after: SpanView, retry: int) -> bool:
    """Whether the gap is the wait, at least 100 ms doubled with each retry, and a connection."""
    stated = after.attributes[names.ATTEMPT_WAITED] * 1e9
    gap = after.start_ns - before.end_ns
    return 1e8 * 2**retry <= stated <= gap + _CLOCK
