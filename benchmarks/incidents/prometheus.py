"""A real Prometheus with the alert rules, with shorter times so that a run takes minutes."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml
from tests.support.telemetry.dashboards import OBSERVABILITY

from dsql_outbox.servers.server_process import ServerProcess, free_port

from .parts import CACHE, MissingPart, go_build, run

FASTER: Final = 20
"""How many times shorter the windows and the `for` of the alert rules are."""

_LOOK_BACK: Final = f"{300 // FASTER}s"
"""The largest age of a sample, by default 5 minutes, so it is shorter too."""

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME: Final = re.compile(r"(?P<before>\[|offset )(?P<number>\d+)(?P<unit>[smhd])")
_MODULE: Final = "github.com/prometheus/prometheus@v0.316.0"
_ANSWER: Final = 10.0  # seconds


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[float]:
        """The values of an instant query. Raises `HTTPError` for one that is wrong."""
        found = self._get("/api/v1/query?" + urlencode({"query": expression}))
        result = found["result"]
        return [float(one["value"][1]) for one in result]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that fire or may fire soon, with labels and annotations."""
        found: list[dict[str, Any]] = self._get("/api/v1/alerts")["alerts"]
        return found

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            with urlopen(f"{self.url}/-/ready", timeout=_ANSWER):
                return True
        except (URLError, ConnectionError):
            return False

    def _get(self, path: str) -> Any:
        with urlopen(self.url + path, timeout=_ANSWER) as answer:
            return json.load(answer)["data"]


@contextmanager
def start_prometheus(folder: Path, targets: Sequence[str]) -> Generator[Prometheus]:
    """Run Prometheus inside the block; it scrapes `targets`, each HOST:PORT, every second.

    Raises `MissingPart` if this machine has none and cannot get one.
    """
    program = _program()
    (folder / "alerts.yml").write_text(yaml.safe_dump(faster_rules()))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(_settings(targets)))
    found = Prometheus(port := free_port())
    words = [
        *(f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
        *(f"--web.listen-address=127.0.0.1:{port}", f"--query.lookback-delta={_LOOK_BACK}"),
    ]
    process = ServerProcess("Prometheus", [program, *words], folder / "prometheus.log")
    try:
        process.wait_until_ready(found.is_ready)
        yield found
    finally:
        process.stop()


def faster_rules() -> Any:
    """The alert rules with windows and waits that are `FASTER` times shorter."""
    rules = yaml.safe_load((OBSERVABILITY / "prometheus" / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = _TIME.sub(_shorter, rule["expr"])
            if "for" in rule:
                rule["for"] = _TIME.sub(_shorter, f"[{rule['for']}").removeprefix("[")
    return rules


def _shorter(found: re.Match[str]) -> str:
    milliseconds = int(found["number"]) * _SECONDS[found["unit"]] * 1000 // FASTER
    return f"{found['before']}{milliseconds}ms"


def _settings(targets: Sequence[str]) -> Any:
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {"job_name": "dsql-outbox", "static_configs": [{"targets": [*targets]}]}
        ],
    }


def _program() -> str:
    """``PROMETHEUS``, the one on the PATH, Debian's package, or one that Go builds."""
    named = os.environ.get("PROMETHEUS") or shutil.which("prometheus")
    if named:
        return named
    cache = CACHE / "prometheus"
    cache.mkdir(parents=True, exist_ok=True)
    for get in (_from_debian, _from_go):
        try:
            return str(get(cache))
        except (OSError, subprocess.CalledProcessError):
            continue
    raise MissingPart(
        "Prometheus: set PROMETHEUS=/path/to/prometheus, or install Go or Debian's prometheus"
    )


def _from_debian(cache: Path) -> Path:
    program = cache / "usr" / "bin" / "prometheus"
    if not program.exists():
        run("apt-get", "download", "prometheus", cwd=cache)
        (package,) = cache.glob("prometheus_*.deb")
        run("dpkg", "-x", str(package), str(cache), cwd=cache)
    return program


def _from_go(cache: Path) -> Path:
    """Build it without the discovery of cloud services."""
    flags = ("-trimpath", "-tags", "remove_all_sd")
    return go_build(cache / "prometheus", _MODULE, "./cmd/prometheus", *flags)
