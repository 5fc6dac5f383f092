"""Terraform files as plain data: no Terraform takes part."""

import json
from pathlib import Path
from typing import Any

import hcl2


def plain(value: Any) -> Any:
    """What the parser gives, without its own marks: text comes in quotes, as it stands there."""
    if isinstance(value, dict):
        return {plain(k): plain(v) for k, v in value.items() if not str(k).startswith("__")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and value.startswith('"'):
        return json.loads(value)
    return value


def parsed(path: Path) -> dict[str, Any]:
    """The blocks of a file by their kind."""
    with path.open() as file:
        found: dict[str, Any] = plain(hcl2.load(file))
    return found
