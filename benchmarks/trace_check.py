"""``make trace-check``: check the telemetry of one event, from its conflicts to a consumer.

Prints the received trace as a tree, the tree that `dsql-outbox trace` draws from
it, and every query of the dashboards and alert rules with its value on the run.
Exits with 1 when something is missing.
"""

import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from tests.support.commands import run
from tests.support.telemetry.dashboards import Query, alerts, panels
from tests.support.telemetry.event_trace import Check, checks
from tests.support.telemetry.otlp_files import save
from tests.support.telemetry.promql import Vector, evaluate
from tests.support.telemetry.watched_run import CONFLICTS, Watched
from tests.support.telemetry.watched_run import run as run_watched

from dsql_outbox.cli.trace_drawing import render_tree
from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres, NatsServer, OtlpReceiver


def main() -> int:
    logging.getLogger("dsql_outbox").setLevel(logging.CRITICAL)  # conflicts are intended here
    with EmbeddedPostgres() as postgres, NatsServer() as broker, OtlpReceiver() as receiver:
        apply(Database(postgres.url), shards=2)
        watched = run_watched(postgres.url, broker.url, receiver)
        found = [*_trace(watched, receiver), *_queries(watched)]
    missing = [check for check in found if not check.held]
    print(f"\n{len(found) - len(missing)} of {len(found)} checks hold")
    for check in missing:
        print(f"  MISSING  {check.text}")
    return 1 if missing else 0


def _trace(watched: Watched, receiver: OtlpReceiver) -> Iterator[Check]:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(render_tree(watched.trace, width=80))
    received = capture.get()
    print(f"received by OTLP: {len(watched.trace)} spans of event {watched.event_id}\n{received}")
    for check in checks(watched.trace, CONFLICTS):
        print(f"  {'ok  ' if check.held else 'FAIL'} {check.text}")
        yield check
    with TemporaryDirectory() as folder:
        save(receiver.requests, path := Path(folder) / "spans.json")
        done = run("trace", watched.event_id, "--file", path)
    printed = done.out.decode()
    print(f"\n$ dsql-outbox trace {watched.event_id} --file spans.json\n{printed}{done.err}")
    yield Check("dsql-outbox trace draws the same tree", printed.endswith(received))


def _queries(watched: Watched) -> Iterator[Check]:
    print("\nPrometheus output of the run, without buckets and without what is 0")
    for name, series in sorted(watched.last.samples.items()):
        if name.startswith("outbox_") and not name.endswith("_bucket"):
            print(
                "".join(
                    f"  {name:<52} {_shown({k: v}, quiet=False)}\n" for k, v in series.items() if v
                ),
                end="",
            )
    for title, queries in (("dashboards", panels()), ("alert rules", alerts())):
        print(f"\n{title}, each query with its value on this run")
        for query in queries:
            found = evaluate(query.expression, watched.first, watched.last)
            quiet = query.place.startswith("alert: ")
            print(f"  {query.place:<58} {_shown(found, quiet=quiet)}")
            print(f"      {' '.join(query.expression.split())}")
            yield _has_value(query, found, quiet=quiet)


def _has_value(query: Query, found: Vector, *, quiet: bool) -> Check:
    """Check that a query has a value; an alert may have none."""
    shown = bool(found) and not any(map(math.isnan, found.values()))
    return Check(f"{query.place} has a value", quiet or shown)


def _shown(found: Vector, *, quiet: bool) -> str:
    if not found:
        return "quiet" if quiet else "NOTHING"
    own = {"instance", "job"}
    values = [
        (" ".join(value for name, value in sorted(labels) if name not in own), number)
        for labels, number in found.items()
    ]
    return ", ".join(f"{name} {number:.4g}".strip() for name, number in sorted(values))


if __name__ == "__main__":
    sys.exit(main())
