"""Alive and ready: what is answered, and that the two are not the same."""

import json

import pytest
from tests.support.clock import Clock

from dsql_outbox.cli.relay.daemon import Daemon
from dsql_outbox.cli.relay.relay_run import RelayRun
from dsql_outbox.cli.telemetry.metering import Metering
from dsql_outbox.observability.facts import PublishEnded, RelayProgress
from dsql_outbox.operations.health import OK, SILENT, STUCK, Health
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import PublisherSettings

PROGRESS = RelayProgress()
OUTAGE = RelayProgress(read=1, sink_available=False)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    health = Health(clock)
    health.database = health.broker = OK
    return health


def test_a_new_one_is_alive_and_not_ready(clock: Clock) -> None:
    health = Health(clock)
    assert health.alive().alive
    found = health.ready()
    assert not found.ready
    assert OK not in {found.database, found.broker, found.relay}


def test_it_is_ready_once_the_relay_has_reported_and_all_answer(health: Health) -> None:
    assert not health.ready().ready
    health(PROGRESS)
    assert health.ready().ready


@pytest.mark.parametrize("part", ["database", "broker"])
def test_a_part_that_fails_is_named(health: Health, part: str) -> None:
    health(PROGRESS)
    setattr(health, part, "cannot be reached")
    found = health.ready()
    assert not found.ready
    assert getattr(found, part) == "cannot be reached"


def test_a_relay_that_met_no_broker_counts_though_the_probe_met_one(health: Health) -> None:
    health(OUTAGE)
    assert health.ready().broker == "cannot be reached"
    health(PROGRESS)
    assert health.ready().ready


@pytest.mark.parametrize(
    ("progress", "part", "reason"),
    [
        (RelayProgress(leases_kept=False), "relay", "cannot renew its leases"),
        (RelayProgress(unowned=3), "relay", "lacks 3 shards"),
        (RelayProgress(database_available=False), "database", "does not serve the relay"),
    ],
)
def test_it_is_ready_only_with_its_share_its_leases_and_answers_to_its_statements(
    health: Health, progress: RelayProgress, part: str, reason: str
) -> None:
    health(progress)
    found = health.ready()
    assert (found.ready, getattr(found, part)) == (False, reason)
    fault = f"{part} {reason}. See dsql-outbox status, and the log."
    assert found.summary == f"No messages are relayed: {fault}"
    health(PROGRESS)
    assert (health.ready().ready, health.ready().summary) == (True, "What is stored is relayed.")


def test_a_fault_says_since_when_also_if_nobody_asked(health: Health, clock: Clock) -> None:
    health(PROGRESS)
    for clock.now in (5, 20):
        health.broker = "cannot be reached"
    clock.now = 25
    health(RelayProgress(leases_kept=False))
    clock.now = 40
    said = health.ready().summary
    assert said.startswith("No messages are relayed for 35.0 s: broker cannot be reached, rel")
    health.broker = OK
    assert health.ready().summary.startswith("No messages are relayed for 15.0 s: relay cannot")
    health(PROGRESS)
    health(RelayProgress(leases_kept=False))
    assert health.ready().summary.startswith("No messages are relayed: relay cannot")


def test_the_relay_is_at_work_as_long_as_it_tells_of_messages(health: Health, clock: Clock) -> None:
    health(PROGRESS)
    clock.now = SILENT
    assert health.ready().ready
    health(PublishEnded(None, "topic", "delivered"))  # type: ignore[arg-type]
    clock.now = 2 * SILENT
    assert health.ready().ready
    clock.now += 1
    assert health.ready().relay == f"no sign of life for {SILENT + 1:.0f} s"


def test_paused_topics_are_named_and_leave_it_ready(health: Health) -> None:
    assert health.ready().paused == ()
    health(RelayProgress(paused=["events.A", "events.B"]))
    found = health.ready()
    assert (found.ready, found.paused) == (True, ["events.A", "events.B"])
    assert found.summary.startswith("Topics events.A, events.B take no messages: the broker ")
    health(RelayProgress(paused=["a", "b", "c", "d"], paused_more=650))
    assert health.ready().summary.startswith("Topics a, b, c and 651 more take ")
    health(PROGRESS)
    assert health.ready().paused == ()


def test_messages_that_fail_are_counted_and_leave_it_ready(health: Health) -> None:
    """As of a read model whose function fails each time: the publisher does its part."""
    for held in (7, 1, 0):
        health(RelayProgress(failed=9, held=held))
        found = health.ready()
        assert (found.ready, found.held) == (True, held)


def test_silence_calls_for_a_restart_only_if_nothing_else_is_to_blame(
    health: Health, clock: Clock
) -> None:
    health(PROGRESS)
    clock.now = STUCK
    assert health.alive().alive
    clock.now = STUCK + 1
    assert not health.alive().alive
    health.broker = "cannot be reached"
    assert health.alive().alive
    health.broker, health.database = OK, "cannot be reached"
    assert health.alive().alive
    health.database = OK
    health.beat()
    assert health.alive().alive


def test_told_to_end_it_is_alive_and_not_ready(health: Health) -> None:
    health(PROGRESS)
    health.draining = True
    assert health.alive().alive
    assert health.ready().relay == "shutting down"


def test_the_answers_over_http_are_503_with_the_reason(health: Health, clock: Clock) -> None:
    relaying = RelayRun(
        Database("postgresql://x"), "stdout:", PublisherSettings(), until_empty=True
    )
    relaying.health = health
    routes = Daemon(relaying, Metering(), listen=None, drain=1)._routes()
    health(PROGRESS)
    assert {routes[path]().status for path in ("/healthz", "/readyz")} == {200}
    health(RelayProgress(paused=["events.A"]))
    answer = routes["/readyz"]()
    assert (answer.status, json.loads(answer.body)) == (
        200,
        {
            "ready": True,
            "summary": "Topic events.A takes no messages: the broker refuses it, the map "
            "fails, or an operator paused it. Other topics go on. See dsql-outbox status, and the "
            "log.",
            "database": "ok",
            "broker": "ok",
            "relay": "ok",
            "paused": ["events.A"],
            "paused_more": 0,
            "held": 0,
        },
    )
    clock.now = STUCK + 1
    answer = routes["/healthz"]()
    assert (answer.status, answer.body) == (
        503,
        b'{"alive":false,"relay":"no sign of life for 61 s"}\n',
    )
    assert routes["/readyz"]().status == 503
    assert "/metrics" not in routes, "nobody measures"
    page = routes["/"]()
    links = {f'<a href="{path}">'.encode() in page.body for path in ("/healthz", "/readyz")}
    assert (page.status, page.content_type, links) == (200, "text/html; charset=utf-8", {True})
