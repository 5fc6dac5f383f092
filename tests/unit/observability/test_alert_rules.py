"""Each alert rule fires and clears on series of samples, as Prometheus' own promtool judges."""

import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from tests.support.telemetry.dashboards import OBSERVABILITY, alerts

HEALTHY = {
    'up{job="dsql-outbox", instance="p"}': "1x99",
    'outbox_backlog_age_seconds{job="dsql-outbox", instance="p"}': "0x99",
    'outbox_relay_sink_available{job="dsql-outbox", instance="p"}': "1x99",
    'outbox_relay_shards_owned{job="dsql-outbox", instance="p"}': "16x99",
    'outbox_relay_topics_paused{job="dsql-outbox", instance="p"}': "0x99",
    'outbox_dead_letters{job="dsql-outbox", instance="p"}': "0x99",
    'outbox_forget_age_seconds{job="dsql-outbox", instance="p"}': "900000+60x99",
    'outbox_write_calls_total{instance="w", outbox_write_status="committed"}': "0+100x99",
}
"""A sample a minute of a publisher and a writer that have no trouble."""

P = 'job="dsql-outbox", instance="p"'
SLOW = 'outbox_write_duration_seconds_bucket{outbox_write_conflicted="no", le='


class Case(NamedTuple):
    """What happens, and the minutes at which the alert is quiet, fires, and is quiet again."""

    alert: str
    series: dict[str, str]
    fires: list[int]
    quiet: list[int]


def gone(*names: str) -> dict[str, str]:
    """A publisher that ends after 4 minutes: its series have no samples until minute 30."""
    return {name: HEALTHY[name].replace("x99", "x4 _x25 ") + "1x50" for name in names}


PUBLISHER = [name for name in HEALTHY if name.startswith(("outbox_relay", "outbox_dead"))]
CASES = [
    Case(
        "OutboxLagging", {f"outbox_backlog_age_seconds{{{P}}}": "0x4 90x9 0x50"}, [8, 14], [5, 16]
    ),
    Case("OutboxNobodyRelays", gone(*PUBLISHER), [15, 29], [5, 31]),
    Case("OutboxNobodyRelays", {f"outbox_relay_shards_owned{{{P}}}": "2x4 0x9 2x50"}, [8], [5, 16]),
    Case("OutboxPublisherDown", {f"up{{{P}}}": "1x4 0x9 1x50"}, [7], [5, 16]),
    Case(
        "OutboxBrokerUnreachable",
        {f"outbox_relay_sink_available{{{P}}}": "1x4 0x9 1x50"},
        [7],
        [5, 16],
    ),
    Case(
        "OutboxTopicPaused", {f"outbox_relay_topics_paused{{{P}}}": "0x4 1x9 0x50"}, [11], [8, 16]
    ),
    # It stays for as long as letters are there, and without a publisher, whose last count holds.
    Case(
        "OutboxDeadLetters", {f"outbox_dead_letters{{{P}}}": "0x4 2x49 0x20"}, [6, 30, 50], [3, 56]
    ),
    Case("OutboxDeadLetters", {f"outbox_dead_letters{{{P}}}": "0x4 2x4 _x60"}, [6, 30, 50], [3]),
    Case(
        "OutboxDeadLetters",
        {
            f"outbox_dead_letters{{{P}}}": "_x60",
            f"outbox_relay_dead_letters_total{{{P}}}": "0x4 1x50",
        },
        [6],
        [3, 30],
    ),
    # Two weeks and a day, and then a job is complete.
    Case(
        "OutboxForgetLate",
        {f"outbox_forget_age_seconds{{{P}}}": "1295700+60x20 0+60x50"},
        [15, 20],
        [4, 9, 22],
    ),
    Case(
        "OutboxRetriesExhausted",
        {'outbox_write_exhausted_total{instance="w"}': "7x9 8x50"},
        [11],
        [20],
    ),
    # A process that lives for one sample, and one that was there before.
    Case(
        "OutboxRetriesExhausted",
        {
            'outbox_write_exhausted_total{instance="w"}': "7x60",
            'outbox_write_exhausted_total{instance="s"}': "_x29 1 _x30",
        },
        [30, 33],
        [10, 28, 36],
    ),
    Case(
        "OutboxWritesFail",
        {
            'outbox_write_calls_total{instance="w", outbox_write_status="failed"}': (
                "0x9 0+50x20 1000x30"
            )
        },
        [20],
        [9, 45],
    ),
    Case(
        "OutboxManyConflicts",
        {
            'outbox_write_conflicts_total{instance="w", outbox_attempt_oc_class="OC000"}': (
                "0x9 0+100x20 2000x40"
            )
        },
        [28],
        [9, 45],
    ),
    Case(
        "OutboxWritesSlow",
        {
            f'{SLOW}"0.5"}}': "0+100x9 1000x20 1000+100x40",
            f'{SLOW}"1"}}': "0+100x70",
            f'{SLOW}"+Inf"}}': "0+100x70",
        },
        [25],
        [9, 45],
    ),
]


def promtool() -> str | None:
    """On the PATH, or where `make incidents` has unpacked it."""
    cached = OBSERVABILITY.parent / ".venv/.cache/prometheus/usr/bin/promtool"
    return shutil.which("promtool") or (str(cached) if cached.exists() else None)


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == {
        query.place.removeprefix("alert: ") for query in alerts()
    }


@pytest.mark.skipif(promtool() is None, reason="needs Prometheus' own promtool")
def test_every_alert_fires_and_clears(tmp_path: Path) -> None:
    program = promtool()
    assert program is not None
    (path := tmp_path / "cases.yml").write_text(yaml.safe_dump(cases()))
    done = subprocess.run(
        [program, "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def cases() -> dict[str, Any]:
    """The cases as promtool wants them."""
    return {
        "rule_files": [str(OBSERVABILITY / "prometheus" / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values}
                    for name, values in (HEALTHY | case.series).items()
                ],
                "promql_expr_test": [
                    *(expectation(case.alert, minute, fires=True) for minute in case.fires),
                    *(expectation(case.alert, minute, fires=False) for minute in case.quiet),
                ],
            }
            for case in CASES
        ],
    }


def expectation(alert: str, minute: int, *, fires: bool) -> dict[str, Any]:
    """Whether an alert fires at a minute."""
    samples = [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
    return {
        "expr": f'count by (alertname) (ALERTS{{alertname="{alert}", alertstate="firing"}})',
        "eval_time": f"{minute}m",
        "exp_samples": samples if fires else [],
    }
