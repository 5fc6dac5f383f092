"""A schedule as a test: it is written into tests/support/publisher/kept_schedules.py."""

import ast
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from typing import Final

from .schedule import Schedule
from .smaller import literal

ROOT: Final = Path(__file__).resolve().parents[2]

KEPT: Final = ROOT / "tests" / "support" / "publisher" / "kept_schedules.py"
"""The file that the tests of the simulation read."""


def keep(schedule: Schedule, name: str, mapping: str, file: Path = KEPT) -> None:
    """Write a schedule into the dictionary `mapping` of a file, instead of one with this name."""
    source = file.read_text()
    kept = _mapping(source, mapping)
    lines = source.splitlines()
    first = end = (kept.end_lineno or 0) - 1  # before its closing brace
    for key, value in zip(kept.keys, kept.values, strict=True):
        if isinstance(key, ast.Constant) and key.value == name:
            first, end = key.lineno - 1, value.end_lineno or 0
    lines[first:end] = indent(f"{name!r}: {literal(schedule)},", "    ").splitlines()
    file.write_text("\n".join(lines) + "\n")
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", file], check=True)


def _mapping(source: str, name: str) -> ast.Dict:
    """The dictionary that is assigned to a name."""
    assigned = (each for each in ast.parse(source).body if isinstance(each, ast.AnnAssign))
    for each in assigned:
        if ast.unparse(each.target) == name and isinstance(each.value, ast.Dict):
            return each.value
    raise LookupError(name)
