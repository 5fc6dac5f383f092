"""Every query of the dashboards and alert rules asks for what docs/reference/telemetry.md promises.

That the code really emits it is for `integration/test_dashboards.py`.
"""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from tests.support.checkout import ROOT
from tests.support.telemetry.dashboards import OBSERVABILITY, alerts, panels, promised
from tests.support.telemetry.promql import asked, evaluate, scrape

PROMISED = promised()
QUERIES = [*panels(), *alerts()]
OWN = {"outbox_target", "le", "instance", "job"}  # labels that Prometheus gives
DASHBOARDS = [json.loads(p.read_text()) for p in (OBSERVABILITY / "grafana").rglob("*.json")]


def test_queries_name_metrics_labels_and_values_that_there_are() -> None:
    """A counter is never shown bare, and a gauge never as a rate."""
    for query in QUERIES:
        metrics, grouped = asked(query.expression)
        assert metrics, query
        for metric in metrics:
            labels = PROMISED[metric.name]
            assert grouped <= labels.keys() | OWN, query
            for label, is_pattern, value in metric.matchers:
                if label not in OWN:
                    assert {*(value.split("|") if is_pattern else [value])} <= labels[label], query
        text = query.expression
        counts = re.findall(r"(\w+_(?:total|bucket|sum|count))", text)
        counted = re.findall(r"(?:rate|increase|last_over_time)\(\s*(\w+)", text)
        gauges = re.findall(r"last_over_time\((outbox_(?:dead_letters|failures))\b", text)
        assert sorted(counted) == sorted(counts + gauges), query


def test_the_windows_of_a_panel_follow_the_panel() -> None:
    """Beside 1d: the last count of publishers that run no more."""
    for panel in (panel for board in DASHBOARDS for panel in board["panels"]):
        own = "$__range" if panel["type"] == "stat" else "$__rate_interval"
        for asks in panel["targets"]:
            windows = set(re.findall(r"\[([^]]+)\](?! offset)", asks["expr"]))
            assert windows <= {own, "1d"}, panel["title"]
            assert ("$__range" in asks["expr"]) == asks.get("instant", False), panel["title"]


def test_a_panel_without_data_says_why() -> None:
    for board in DASHBOARDS:
        for panel in board["panels"]:
            always = all(asks["expr"].endswith("or vector(0)") for asks in panel["targets"])
            assert always or panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


def test_a_wrong_metric_label_or_value_would_be_found() -> None:
    for wrong in ("outbox_lag", "sum by (host) (outbox_backlog_age_seconds{})"):
        (metric,), grouped = asked(wrong)
        assert metric.name not in PROMISED or not grouped <= PROMISED[metric.name].keys() | OWN
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        asked("sum(rate(outbox_write_calls_total[5m])")


def test_panels_ask_the_source_that_is_provisioned() -> None:
    text = (OBSERVABILITY / "grafana/provisioning/datasources/datasources.yml").read_text()
    uids = {source["uid"] for source in yaml.safe_load(text)["datasources"]}
    used = {panel["datasource"]["uid"] for board in DASHBOARDS for panel in board["panels"]}
    assert used == {"${datasource}"}
    (defaults,) = {
        variable["current"]["value"]
        for board in DASHBOARDS
        for variable in board["templating"]["list"]
    }
    assert defaults in uids


def test_the_docs_have_a_row_for_every_alert_and_no_other() -> None:
    text = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    section = text.partition("## Alerts")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `(\w+)` ", section, re.MULTILINE)
    assert told == [query.place.removeprefix("alert: ") for query in alerts()]


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs Prometheus' own promtool")
@pytest.mark.parametrize("words", [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_promtool_takes_the_files(words: tuple[str, str]) -> None:
    kind, name = words
    command = ["promtool", "check", kind, str(OBSERVABILITY / "prometheus" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_publishers_see_of_the_lag_goes_before_what_writers_saw_last() -> None:
    (lag,) = (query.expression for query in alerts() if query.place == "alert: OutboxLagging")
    writer = b"# TYPE outbox_backlog_age_seconds gauge\noutbox_backlog_age_seconds 100\n"
    broker = b"# TYPE outbox_relay_sink_available gauge\noutbox_relay_sink_available 1\n"
    publisher = writer.replace(b" 100", b" 1") + broker
    for expositions, fires in (([writer], True), ([writer, publisher], False)):
        now = scrape(0, *expositions)
        assert bool(evaluate(lag, now, now)) is fires
    behind = scrape(0, writer.replace(b"100", b"0"), writer + broker)
    assert evaluate(lag, behind, behind)


FIRST = b"""# TYPE a counter
a_total{x="1"} 10
a_total{x="2"} 0
# TYPE d histogram
d_bucket{le="1.0"} 0
d_bucket{le="2.0"} 0
d_bucket{le="+Inf"} 0
d_count 0
d_sum 0
# TYPE g gauge
g 3
"""
LAST = b"""# TYPE a counter
a_total{x="1"} 40
a_total{x="2"} 10
# TYPE d histogram
d_bucket{le="1.0"} 5
d_bucket{le="2.0"} 10
d_bucket{le="+Inf"} 10
d_count 10
d_sum 12
# TYPE g gauge
g 7
# TYPE n counter
n_total 3
"""


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("sum(rate(a_total[5m]))", 4.0),
        ('sum(rate(a_total{x=~"2|3"}[5m]))', 1.0),
        ('sum(increase(a_total{x="1"}[1h]))', 30.0),
        ('sum(rate(a_total{x="1"}[5m])) / sum(rate(a_total[5m]))', 0.75),
        ("sum(rate(a_total[5m])) - sum(rate(d_count[5m]))", 3.0),
        ("histogram_quantile(0.75, sum by (le) (rate(d_bucket[5m])))", 1.5),
        ("max(g) > 6", 7.0),
        ("min(g) == 3", None),
        ("absent(g) or sum(g) == 7", 7.0),
        ("absent(h)", 1.0),
        ("max(g and on (job, instance) a_total)", 7.0),
        ("max(g and on (job, instance) h) or max(g)", 7.0),
        ("sum(a_total and on (x) h)", None),
        ("sum((last_over_time(n_total[5m]) unless last_over_time(n_total[1h] offset 5m)))", 3.0),
        ("sum(last_over_time(a_total[5m]) unless last_over_time(a_total[1h] offset 5m))", None),
        ("sum(h) or vector(0)", 0.0),
        ('up{job="dsql-outbox"} == 0', None),
    ],
)
def test_the_small_reader_of_queries_counts_as_prometheus_does(
    expression: str, value: float | None
) -> None:
    found = evaluate(expression, scrape(0, FIRST), scrape(10, LAST))
    assert list(found.values()) == ([] if value is None else [pytest.approx(value)])


def test_a_query_beyond_the_small_reader_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="deriv"):
        evaluate("deriv(g[5m])", scrape(0, FIRST), scrape(10, LAST))
