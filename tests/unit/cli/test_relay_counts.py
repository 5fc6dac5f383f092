"""What a run of ``publish`` says of its counts, and of what it leaves."""

from collections.abc import Callable

import pytest

from dsql_outbox.cli.relay.leftover import LIMIT, WaitingTopic, leftover
from dsql_outbox.cli.relay.relay_counts import CountsText, RelayCounts
from dsql_outbox.cli.relay.relay_run import RelayRun
from dsql_outbox.observability.facts import CallEnded, CallStarted, RelayProgress
from dsql_outbox.observability.hooks import Listeners
from dsql_outbox.observability.otel.spans import trace_facts
from dsql_outbox.operations import Health
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import PublisherSettings


def deliver(counts: RelayCounts, topic: str, count: int) -> None:
    """Count messages of one call, the oldest committed three seconds before it was read."""
    started = CallStarted(topic, "nats", count, 0, 2_000_000_000, 5_000_000_000)
    counts(started)
    counts(CallEnded(started, "delivered", count, 0.1))
    counts(RelayProgress(delivered=count))


@pytest.fixture
def counts() -> RelayCounts:
    return RelayCounts()


def clock(*times: float) -> Callable[[], float]:
    return iter(times).__next__


def test_a_terminal_sees_rates_over_the_last_looks_and_per_topic(counts: RelayCounts) -> None:
    text = CountsText(counts, clock(0.0, 2.0, 3.0))
    deliver(counts, "events.A", 20)
    deliver(counts, "events.B", 1_000)
    total, first, second = text.view().splitlines()
    assert total == "1,020 relayed  510/s  lag 3.0 s  0 failed  0 dead"
    assert first.split() == ["1,000", "500/s", "events.B"]
    assert second.split() == ["20", "10/s", "events.A"]


def test_only_some_topics_are_shown_and_the_paused_are_named(counts: RelayCounts) -> None:
    for n in range(2_000):
        deliver(counts, f"topic-{n}", 1)
    counts(RelayProgress(paused=("topic-1",)))
    lines = CountsText(counts).view().splitlines()
    assert len(lines) == 11
    assert lines[-2].strip() == "and 992 topics more", "a thousand are counted"
    assert lines[-1] == "paused: topic-1"
    counts(RelayProgress(paused=tuple("abcdefghijkl"), paused_more=4_700))
    line = CountsText(counts).view().splitlines()[-1]
    assert line == "paused: a, b, c, d, e, f, g, h and 4,704 more"


def test_the_line_of_a_log_changes_only_with_the_counts(counts: RelayCounts) -> None:
    text = CountsText(counts, clock(0.0, 10.0, 20.0))
    idle = text.line()
    assert text.line() == idle
    deliver(counts, "events.A", 50)
    busy = text.line()
    assert busy == "relayed 50, failed 0, dead 0, 5/s, lag 3.0 s"
    assert text.line() == busy


def test_the_line_tells_of_a_message_that_waits_longer_than_what_is_sent(
    counts: RelayCounts,
) -> None:
    """That of a hot subject: what is sent beside it has no lag."""
    waits = [54.0, 54.0, 3.0]
    text = CountsText(counts, clock(0.0, 10.0, 20.0, 30.0), lambda: waits.pop(0))
    deliver(counts, "events.A", 50)
    assert text.line().endswith(", 5/s, the oldest message waits for 54.0 s")
    assert "/s  the oldest message waits for 54.0 s  0 failed" in text.view()
    deliver(counts, "events.A", 50)
    assert text.line().endswith("/s, lag 3.0 s")


def test_the_leftover_names_the_largest_topics() -> None:
    found = [("a", 5, False, 2), ("b", 3, True, 2), ("c", 2, False, 2), ("d", 1, False, 2)]
    rows = [WaitingTopic(*row) for row in found]
    assert leftover(rows) == (
        "11 messages wait in the outbox: 5 in a, 3 in b (paused), 2 in c, the rest in "
        "1 other topic; 2 blocked: see dsql-outbox messages list --blocked; "
        "for paused topics, see dsql-outbox topics list"
    )
    assert leftover([]) == ""
    assert leftover([WaitingTopic("a", LIMIT + 1, is_paused=False, blocked=0)]).startswith(
        "more than 1,000 messages wait"
    )


def test_retries_and_failures_change_neither_the_lag_nor_the_topics(counts: RelayCounts) -> None:
    deliver(counts, "events.A", 7)
    again = CallStarted("events.A", "nats", 5, 5, None, 9_000_000_000)
    counts(again)
    counts(CallEnded(again, "retry", 5, 0.1))
    assert (counts.lag, counts.topics) == (3.0, {"events.A": 7})


def test_no_hook_of_the_command_wants_single_messages() -> None:
    run = RelayRun(Database("postgresql://x"), "stdout:", PublisherSettings(), until_empty=True)
    wanted = Listeners(run._publisher._hooks)
    assert all(hook is trace_facts for hook in wanted.messages)
    assert {type(hook) for hook in wanted.calls} == {RelayCounts, Health}


def test_the_first_delivery_of_a_topic_is_logged_and_not_of_very_many(
    counts: RelayCounts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dsql_outbox")
    deliver(counts, "events.A", 3)
    deliver(counts, "events.A", 4)
    assert caplog.messages == ["Topic events.A takes messages"]
    for n in range(200):
        deliver(counts, f"events.{n}", 1)
    assert len(caplog.messages) == 50
