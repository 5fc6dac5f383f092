"""The Terraform example is HCL that refers to what it has, and its filters match real log lines.

No Terraform and no AWS takes part: patterns are matched by a small reader of
the part of CloudWatch's syntax that they use.
"""

import json
import logging
import operator
import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from tests.support.checkout import ROOT
from tests.support.hcl import parsed
from tests.support.telemetry.retries import budget, failure, retry

from dsql_outbox.observability import JsonFormatter
from dsql_outbox.observability.facts import (
    BacklogAge,
    BacklogUnread,
    Fact,
    PublishEnded,
    RetriesExhausted,
)
from dsql_outbox.observability.json_logs import KEYS
from dsql_outbox.observability.log_hook import LogFacts

FOLDER = ROOT / "examples" / "cloudwatch"
EVENT = UUID(int=7)
CLAUSE = re.compile(r'\(\$\.(\w+) (=|>=) (?:"([^"]*)"|(\d+))\)')
COMPARE: dict[str, Callable[[Any, Any], bool]] = {"=": operator.eq, ">=": operator.ge}


MAIN = parsed(FOLDER / "main.tf")
CLUSTER = parsed(FOLDER / "cluster.tf")
CLUSTER_ALARMS: dict[str, dict[str, Any]] = CLUSTER["locals"][0]["cluster_alarms"]
ALARMS: dict[str, dict[str, Any]] = MAIN["locals"][0]["alarms"]
FACTS: dict[str, Fact] = {
    "a first retry": retry(EVENT),
    "a retry of OC001": retry(EVENT, 2, 0.2, of=budget("schema change", 2, 10), oc_class="OC001"),
    "a third retry": retry(EVENT, 3, 0.4, sqlstate=None, oc_class=None),
    "a lost connection": retry(EVENT, of=budget("outage", 0.5, 10), oc_class=None),
    "exhausted": RetriesExhausted(EVENT, 4, failure()),
    "a failed publish": PublishEnded(EVENT, "topic", "retry", "no answer", 3),
    "an old backlog": BacklogAge(120, 3, 60),
    "an unread backlog": BacklogUnread("E", "42501", switched_off=True),
}


@pytest.fixture
def lines() -> dict[str, dict[str, Any]]:
    """The line of each fact, as ``--log-format json`` writes it."""
    out = StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("dsql_outbox")
    logger.addHandler(handler)
    hook = LogFacts()
    for fact in FACTS.values():
        hook(fact)
    logger.removeHandler(handler)
    return dict(zip(FACTS, map(json.loads, out.getvalue().splitlines()), strict=True))


def matches(pattern: str, line: dict[str, Any]) -> bool:
    clauses = CLAUSE.findall(pattern)
    rebuilt = " && ".join(m[0] for m in CLAUSE.finditer(pattern))
    assert pattern == f"{{ {rebuilt} }}", "beyond the small reader"
    return all(holds(line.get(key), op, text, number) for key, op, text, number in clauses)


def holds(value: Any, op: str, text: str, number: str) -> bool:
    if value is None:
        return False
    if number:
        return isinstance(value, int | float) and COMPARE[op](value, float(number))
    return fnmatchcase(str(value), text)


@pytest.mark.parametrize(
    ("alarm", "expected"),
    [
        ("conflicts", {"a first retry", "a retry of OC001", "a third retry"}),
        ("late_retries", {"a retry of OC001", "a third retry"}),
        ("waits", {"a first retry", "a retry of OC001", "a third retry", "a lost connection"}),
        ("exhausted", {"exhausted"}),
    ],
)
def test_a_filter_matches_the_lines_that_it_is_for(
    alarm: str, expected: set[str], lines: dict[str, dict[str, Any]]
) -> None:
    pattern = ALARMS[alarm]["pattern"]
    assert {name for name, line in lines.items() if matches(pattern, line)} == expected


def test_a_value_out_of_the_line_is_a_number_in_every_line_that_matches(
    lines: dict[str, dict[str, Any]],
) -> None:
    for alarm in ALARMS.values():
        value = alarm["value"]
        for line in lines.values():
            if value != "1" and matches(alarm["pattern"], line):
                assert isinstance(line[value.removeprefix("$.")], int | float)


def test_every_key_is_one_that_lines_have() -> None:
    text = " ".join(alarm["pattern"] + alarm["value"] for alarm in ALARMS.values())
    keys = set(re.findall(r"\$\.(\w+)", text))
    assert keys == {"logger", "message", "level", "wait_s", "attempt", "limit", "count"}
    assert keys - {"logger", "message", "level"} <= set(KEYS)


def test_the_alarm_on_waits_is_below_the_longest_wait_of_a_write() -> None:
    assert 0.2 < ALARMS["waits"]["threshold"] < 0.4


def test_what_is_referred_to_is_there() -> None:
    texts = {name: (FOLDER / name).read_text() for name in ("main.tf", "cluster.tf")}
    declared = {name for block in parsed(FOLDER / "variables.tf")["variable"] for name in block}
    assert set(re.findall(r"var\.(\w+)", "".join(texts.values()))) == declared
    for name, alarms in (("main.tf", ALARMS), ("cluster.tf", CLUSTER_ALARMS)):
        for alarm in alarms.values():
            assert set(re.findall(r"each\.value\.(\w+)", texts[name])) == set(alarm)
    resources = [
        (kind, name)
        for file in (MAIN, CLUSTER)
        for block in file["resource"]
        for kind, names in block.items()
        for name in names
    ]
    assert resources == [
        ("aws_cloudwatch_log_metric_filter", "outbox"),
        ("aws_cloudwatch_metric_alarm", "outbox"),
        ("aws_cloudwatch_metric_alarm", "cluster"),
    ]
    assert "aws_cloudwatch_log_metric_filter.outbox[each.key]" in texts["main.tf"]


def test_the_metrics_of_the_cluster_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text()
    section = page.split("\n### Aurora DSQL's own metrics\n")[1].split("\n## ")[0]
    told = dict(re.findall(r"^\| `(\w+)` \|.*\| `?([\w-]*)`? \|$", section, re.MULTILINE))
    alarms = {alarm["metric"]: name for name, alarm in CLUSTER_ALARMS.items()}
    assert {metric: name for metric, name in told.items() if name} == alarms


def test_an_alarm_has_one_statistic() -> None:
    for alarm in (*ALARMS.values(), *CLUSTER_ALARMS.values()):
        assert (alarm["statistic"] is None) != (alarm["percentile"] is None)
