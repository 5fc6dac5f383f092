"""The result of one check or probe."""

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal

import msgspec
import psycopg

from dsql_outbox.cli.output import folded, say, say_all
from dsql_outbox.outbox.redaction import error_line

Verdict = Literal["ok", "warn", "fail", "unknown"]

Value = float | str | bool | None


class Finding(msgspec.Struct, frozen=True):
    """A verdict and the line that explains it.

    `values` are the numbers behind it, times in seconds. `remedy` is the advice. `sqlstate`
    is the database's error code if the check could not be made.
    """

    name: str
    verdict: Verdict
    text: str
    remedy: str | None = None
    sqlstate: str | None = None
    values: Mapping[str, Value] = {}


def refused(
    name: str, verdict: Verdict, text: str, error: psycopg.Error, remedy: str | None = None
) -> Finding:
    """Return the finding of a refusal, with its code and text, as a report records them."""
    values = {"message": error_line(error)}
    return Finding(name, verdict, text, remedy, sqlstate=error.sqlstate, values=values)


class Report(msgspec.Struct, frozen=True):
    """All findings; `failed` says whether one of them has the verdict `fail`."""

    schema: str
    failed: bool
    findings: tuple[Finding, ...]


_COLOURS: Final[Mapping[Verdict, str]] = {
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "unknown": "cyan",
}
_VERDICT: Final = len("unknown")


def show(findings: Iterable[Finding], names: Collection[str]) -> list[Finding]:
    """Print each finding as soon as it is known, then a count per verdict; return all findings.

    `names` are the names of all checks to come; they give the column its width.
    """
    width = max(map(len, names))
    hang = _VERDICT + width + 4
    found: list[Finding] = []
    for finding in findings:
        found.append(finding)
        remedy = "" if finding.remedy is None else f"; {finding.remedy}"
        _say(finding.verdict, f"  {finding.name:{width}}  {finding.text}{remedy}", hang)
    counts = Counter(finding.verdict for finding in found)
    say()
    say(", ".join(f"{counts[verdict]} {verdict}" for verdict in _COLOURS))
    return found


def _say(verdict: Verdict, rest: str, hang: int) -> None:
    first, *others = folded(f"{verdict:{_VERDICT}}{rest}", hang)
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - 60 ms, for terminals only
        from rich.text import Text  # noqa: PLC0415 - for terminals only

        line = Text.assemble((first[:_VERDICT], _COLOURS[verdict]), first[_VERDICT:])
        Console().print(line, soft_wrap=True)
    else:
        say(first)
    say_all(others)
