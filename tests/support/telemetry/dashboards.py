"""The queries of our dashboards and alert rules, and the metrics that the docs promise."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml
from tests.support.checkout import ROOT

OBSERVABILITY = ROOT / "observability"
ROW = re.compile(
    r"^\| `([\w.]+)` \| (\w+) \| (\w+) \| (?:`([\w.]+)`: ([\w, ]+))? ?\|$", re.MULTILINE
)
ENDINGS = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}

_WINDOW = re.compile(r"\$__(?:rate_interval|range)\b")
"""What Grafana replaces by a time, such as ``5m``."""


class Query(NamedTuple):
    """A query, and where it stands."""

    place: str
    expression: str


def panels(window: str = "5m") -> Iterator[Query]:
    """Every query of a dashboard, as Grafana asks it for a time of `window`."""
    for path in sorted((OBSERVABILITY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                place = f"{path.stem}: {panel['title']}, {target['legendFormat']}"
                yield Query(place, _WINDOW.sub(window, target["expr"]))


def alerts() -> Iterator[Query]:
    """Every alert rule's."""
    rules = yaml.safe_load((OBSERVABILITY / "prometheus" / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield Query(f"alert: {rule['alert']}", rule["expr"])


def promised() -> dict[str, dict[str, set[str]]]:
    """The names of Prometheus' samples, each with its labels and their values."""
    found: dict[str, dict[str, set[str]]] = {"up": {}}
    text = (ROOT / "docs" / "reference" / "telemetry.md").read_text(encoding="utf-8")
    for name, kind, unit, attribute, values in ROW.findall(text):
        labels = {attribute.replace(".", "_"): set(values.strip().split(", "))} if attribute else {}
        seconds = "_seconds" if unit == "s" else ""
        for ending in ENDINGS[kind]:
            found[name.replace(".", "_") + seconds + ending] = labels
    return found
