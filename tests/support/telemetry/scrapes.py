"""Reading what a daemon serves by HTTP."""

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client.parser import text_string_to_metric_families
from tests.support.commands import Command

_TIMEOUT = 10.0  # seconds


def get(url: str, **headers: str) -> tuple[int, bytes]:
    """Status and body."""
    try:
        with urlopen(Request(url, headers=headers), timeout=_TIMEOUT) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def get_json(url: str) -> tuple[int, Any]:
    """Status and what the body says."""
    status, body = get(url)
    return status, json.loads(body)


def samples(text: bytes) -> dict[str, float]:
    """Samples as Prometheus reads them: ``name`` or ``name{value}``; we have one label at most."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = [value for name, value in sample.labels.items() if name != "le"]
            if "le" not in sample.labels and family.name != "target":
                found[sample.name + (f"{{{labels[0]}}}" if labels else "")] = sample.value
    return found


def base_url(command: Command) -> str:
    """Wait for the line that says where it listens."""
    while "listening on " not in (line := command.error_line()):
        assert line, "ended before it listened"
    return line.partition("listening on ")[2].split()[0].rstrip(":")
