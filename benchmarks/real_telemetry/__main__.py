"""``make real-telemetry``: traces, dashboards and alerts on a real Jaeger and Prometheus.

Starts both where this machine can have them, an embedded PostgreSQL, NATS, a publisher and a
writer. Causes a broker's outage, a dead letter, a storm of conflicts and more; prints a line
per trace check, per query of the dashboards and per alert, with the seconds until it fired
and until it cleared. The windows of the rules are shorter than in production, which the first
line says. Exits with 1 when something failed. A part that this machine does not have is
named, and is not a failure.
"""

import argparse
import logging
import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError

from tests.support.telemetry.dashboards import Query, panels
from tests.support.waiting import wait_until

from .alert_checks import check_alerts
from .jaeger import start_jaeger
from .parts import MissingPart
from .prometheus import FASTER, Prometheus, start_prometheus
from .short_processes import check_short_processes
from .stage import Stage, staged
from .trace_checks import check_traces

_PANEL = "10m"
"""The time range of the dashboards: the whole run, so each panel has something to show."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=12, help="short processes that fail")
    given = parser.parse_args()
    logging.disable()  # the failures are intended here
    results: list[bool] = []
    for part in (_traces, partial(_metrics, given.processes)):
        try:
            results += part()
        except MissingPart as error:
            print(f"missing  {error}", flush=True)
    print(f"{sum(results)} of {len(results)} checks hold")
    return 0 if all(results) else 1


def _traces() -> Iterator[bool]:
    with TemporaryDirectory() as folder, start_jaeger(Path(folder)) as jaeger:
        for name, ok, detail in check_traces(jaeger):
            yield _line(name, ok, detail)


def _metrics(processes: int) -> Iterator[bool]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        stage = stack.enter_context(staged())
        writer = stack.enter_context(stage.busy_writer())
        prometheus = stack.enter_context(start_prometheus(folder, [stage.listen, writer]))
        stage.start_publisher()
        print(f"windows and waits of the alerts are {FASTER} times shorter\n", flush=True)
        yield from _alerts(prometheus, stage)
        yield from _dashboards(prometheus)
        yield from _short_processes(prometheus, stage, processes)


def _alerts(prometheus: Prometheus, stage: Stage) -> Iterator[bool]:
    wait_until(lambda: not prometheus.firing() and prometheus.query("up") == [1.0, 1.0], timeout=60)
    print(f"{'':8} {'alert':<26} {'fired after':>12} {'cleared after':>14}")
    for seen in check_alerts(prometheus, stage):
        times = f"{_seconds(seen.fired_s):>12} {_seconds(seen.cleared_s):>14}"
        yield _line(f"{seen.alert:<26} {times}", seen.held)


def _dashboards(prometheus: Prometheus) -> Iterator[bool]:
    print()
    for query in panels(_PANEL):
        value = _value(prometheus, query)
        yield _line(query.place, not math.isnan(value), f"{value:.4g}")


def _value(prometheus: Prometheus, query: Query) -> float:
    """The largest value of a query, NaN if there is none."""
    try:
        return max(prometheus.query(query.expression), default=math.nan)
    except HTTPError as error:
        print(error.read().decode(), file=sys.stderr)
        return math.nan


def _short_processes(prometheus: Prometheus, stage: Stage, count: int) -> Iterator[bool]:
    print()
    ok, said = check_short_processes(prometheus, stage, count)
    yield _line("short processes", ok, said)


def _line(name: str, ok: bool, detail: str = "") -> bool:
    print(f"{'ok' if ok else 'NOT OK':<8} {name:<58} {detail}".rstrip(), flush=True)
    return ok


def _seconds(taken: float | None) -> str:
    return "never" if taken is None else f"{taken:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
