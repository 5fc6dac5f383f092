"""Commands that end after seconds, each of which exhausts its retries once, are all counted."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.support.telemetry.dashboards import panels
from tests.support.waiting import wait_until
from tests.support.writer import workload_s

from .parts import MissingPart
from .prometheus import Prometheus
from .stage import Stage

_LONGEST: Final = 30.0  # seconds
_WINDOW: Final = "30m"  # longer than all of them take


def check_short_processes(prometheus: Prometheus, stage: Stage, count: int) -> tuple[bool, str]:
    """Run `count` commands. Returns whether the panel and the alert see them, and what they say.

    Raises `MissingPart` if this Prometheus takes no OTLP, by which commands send metrics.
    """
    if not prometheus.takes_otlp:
        raise MissingPart("a Prometheus that receives OTLP, which is 3.0 or newer: set PROMETHEUS")
    before = _exhausted(prometheus)
    with stage.conflicts(), ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda n: _write(prometheus, stage, n), range(count)))
    alert = False

    def seen() -> bool:
        nonlocal alert
        alert = alert or "OutboxRetriesExhausted" in prometheus.firing()
        return alert and _exhausted(prometheus) - before >= count

    with suppress(TimeoutError):
        wait_until(seen, timeout=_LONGEST)
    found = _exhausted(prometheus) - before
    said = f"{count} processes, {sum(map(bool, codes))} failed, panel {found:g}, alert {alert}"
    return alert and found == count, said


def _exhausted(prometheus: Prometheus) -> float:
    (panel,) = (query for query in panels(_WINDOW) if query.place == "writer: Exhausted, exhausted")
    commands = panel.expression.replace("_total", '_total{job!="dsql-outbox"}')
    (value,) = prometheus.query(commands)
    return value


def _write(prometheus: Prometheus, stage: Stage, number: int) -> int:
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{prometheus.url}/api/v1/otlp/v1/metrics",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_SERVICE_NAME": "dsql-outbox-write",
    }
    scripts = Path(sys.executable).parent
    programs = [scripts / "opentelemetry-instrument", scripts / "dsql-outbox"]
    words = [*map(str, programs), "write", "--database", stage.proxy.url]
    event = workload_s.car_created(f"car-{number}").to_json() + b"\n"
    return subprocess.run(words, input=event, env=environment, check=False).returncode
