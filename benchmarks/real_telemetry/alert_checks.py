"""Each alert fires while its cause lasts, and clears after its remedy."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from http import HTTPStatus
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final, NamedTuple

import psycopg
from tests.support.commands import run
from tests.support.telemetry.scrapes import get, samples
from tests.support.waiting import wait_until

from dsql_outbox.outbox import Entity, Event

from .prometheus import Prometheus
from .stage import Stage

_LONGEST: Final = 120.0  # seconds that an alert may take to fire or to clear
_TOPIC: Final = "events.Paused"
_REJECTED: Final = "a b"
"""An event type of which NATS can make no subject."""


class Seen(NamedTuple):
    """How an alert behaved; None where it did not within the time."""

    alert: str
    fired_s: float | None
    cleared_s: float | None

    @property
    def held(self) -> bool:
        """Whether it fired and cleared."""
        return None not in (self.fired_s, self.cleared_s)


class Cause(NamedTuple):
    """The cause of alerts, which lasts as long as its context."""

    harm: Callable[[], AbstractContextManager[None]]
    alerts: Sequence[str]


def check_alerts(prometheus: Prometheus, stage: Stage) -> list[Seen]:
    """Cause each alert once. Causes of the relay and of the writer run side by side."""
    relay = [
        Cause(stage.without_publisher, ("OutboxPublisherDown", "OutboxNobodyRelays")),
        Cause(partial(_idle_outage, stage), ("OutboxBrokerUnreachable",)),
        Cause(stage.behind, ("OutboxLagging",)),
        Cause(partial(_paused_topic, stage), ("OutboxTopicPaused",)),
        Cause(partial(_dead_letter, prometheus, stage), ("OutboxDeadLetters",)),
        Cause(partial(_late_archive, stage), ("OutboxArchiveLate",)),
    ]
    storm = ("OutboxRetriesExhausted", "OutboxWritesFail", "OutboxManyConflicts")
    writer = [Cause(stage.conflicts, storm), Cause(stage.slow_writes, ("OutboxWritesSlow",))]
    with ThreadPoolExecutor(2) as pool:
        lanes = pool.map(partial(_watch_lane, prometheus), (relay, writer))
        return [seen for lane in lanes for seen in lane]


def _watch_lane(prometheus: Prometheus, causes: Sequence[Cause]) -> list[Seen]:
    return [seen for cause in causes for seen in _watch(prometheus, cause)]


def _watch(prometheus: Prometheus, cause: Cause) -> Iterator[Seen]:
    with cause.harm():
        fired = _seconds_until(cause.alerts, lambda alert: alert in prometheus.firing())
    cleared = _seconds_until(cause.alerts, lambda alert: alert not in prometheus.firing())
    for alert in cause.alerts:
        yield Seen(alert, fired.get(alert), cleared.get(alert) if alert in fired else None)


def _seconds_until(alerts: Sequence[str], holds: Callable[[str], bool]) -> dict[str, float]:
    """For each alert, how many seconds it took until `holds`; without those that took too long."""
    began, found = monotonic(), dict[str, float]()

    def all_hold() -> bool:
        late = [alert for alert in alerts if alert not in found and holds(alert)]
        found.update(dict.fromkeys(late, monotonic() - began))
        return len(found) == len(alerts)

    with suppress(TimeoutError):
        wait_until(all_hold, timeout=_LONGEST)
    return found


@contextmanager
def _idle_outage(stage: Stage) -> Generator[None]:
    """The broker is down while the outbox is empty. /readyz and the gauge agree on that."""
    with stage.without_broker():
        wait_until(partial(_agree, stage, reached=False), timeout=_LONGEST)
        yield
    wait_until(partial(_agree, stage, reached=True), timeout=_LONGEST)


def _agree(stage: Stage, *, reached: bool) -> bool:
    status, _ = get(f"http://{stage.listen}/readyz")
    gauge = samples(get(f"http://{stage.listen}/metrics")[1])["outbox_relay_sink_available"]
    return (status == HTTPStatus.OK) is reached and bool(gauge) is reached


@contextmanager
def _paused_topic(stage: Stage) -> Generator[None]:
    run("topics", "pause", _TOPIC, "--database", stage.database.url)
    yield
    run("topics", "resume", _TOPIC, "--database", stage.database.url)


@contextmanager
def _dead_letter(prometheus: Prometheus, stage: Stage) -> Generator[None]:
    """A dead letter that stays until the counter's window is over, and is then dropped."""
    stage.write(Event.new(_REJECTED, [Entity("Car", "car-rejected")]))
    yield
    counter = "sum(increase(outbox_relay_dead_letters_total[45s]))"
    wait_until(lambda: prometheus.query(counter) == [0.0], timeout=_LONGEST)
    if "OutboxDeadLetters" not in prometheus.firing():
        raise AssertionError("OutboxDeadLetters cleared while a dead letter remained")
    run("messages", "drop", "--state", "dead", "--all", "--yes", "--database", stage.database.url)


@contextmanager
def _late_archive(stage: Stage) -> Generator[None]:
    """The last complete archive job was 30 days ago; then one is complete."""
    url = stage.database.url
    with TemporaryDirectory() as folder:
        archive = partial(run, "archive", "--before", "90d", "--to", folder, "--database", url)
        archive()
        with psycopg.connect(url) as connection:
            connection.execute(
                "UPDATE outbox.outbox_jobs SET archived_at = archived_at - interval '30 days'"
            )
        yield
        archive()
