"""Measured results as dated files: one JSON object per kind and day."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import machine

FOLDER = Path(__file__).parent / "peers" / "results"


def save(kind: str, before: float, content: Mapping[str, object], folder: Path = FOLDER) -> Path:
    """Write the results of today; those of the same kind and day are replaced.

    `before` is the load of the machine before anything was measured.
    """
    date = datetime.now(UTC).date().isoformat()
    path = folder / f"{date}-{kind}.json"
    folder.mkdir(exist_ok=True)
    found = {"date": date, "machine": machine(), "load_before": before, **content}
    path.write_text(json.dumps(_rounded(found), indent=1) + "\n", encoding="utf-8")
    return path


def newest(kind: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """The newest results of a kind; None when it was never measured."""
    paths = sorted(folder.glob(f"????-??-??-{kind}.json"))
    if not paths:
        return None
    found: dict[str, Any] = json.loads(paths[-1].read_text(encoding="utf-8"))
    return found


def _rounded(value: Any) -> Any:
    """The same with four digits per number: more than a measurement is worth."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {name: _rounded(each) for name, each in value.items()}
        case list() | tuple():
            return [_rounded(each) for each in value]
        case _:
            return value
