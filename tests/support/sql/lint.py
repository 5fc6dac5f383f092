"""Lint every statement of the inventory: ``python -m tests.support.sql.lint [--json]``.

Asks `dsql-lint`, and our own rules for what it misses. Exits with 1 when a rule is broken without
an excuse in the inventory, or when an excuse is not needed.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import click

from .inventory import Entry, inventory, known
from .rules import MIXED, RULES, broken

_LINTER: Final = Path(sys.executable).with_name("dsql-lint")
_ERRORS_FOUND: Final = 1


class Linted(NamedTuple):
    """What was found in one entry: names of `dsql-lint`'s rules, and of ours."""

    entry: Entry
    linter: tuple[str, ...]
    own: tuple[str, ...]

    @property
    def faults(self) -> list[str]:
        """What must be mended, in words."""
        found = {*self.own, *(f"dsql-lint {name}" for name in self.linter)}
        whys = {rule.name: f" ({rule.why})" for rule in (*RULES, MIXED)}
        breaks = [f"breaks {name}{whys.get(name, '')}" for name in sorted(found)]
        needless = sorted(self.entry.excused - found)
        return [
            *(
                text
                for name, text in zip(sorted(found), breaks, strict=True)
                if name not in self.entry.excused
            ),
            *(f"needs no excuse for {name}" for name in needless),
        ]


def lint(entries: Sequence[Entry]) -> list[Linted]:
    """Every entry with what was found in it."""
    linter = _ask_linter([entry.example for entry in entries])
    return [
        Linted(entry, tuple(linter[n]), tuple(rule.name for rule in broken(entry.example)))
        for n, entry in enumerate(entries)
    ]


def refused(sql: str) -> list[str]:
    """The names of our rules that a text at the wire breaks, less what its entry may break."""
    name = known(sql)
    excused = next((each.excused for each in inventory() if each.name == name), frozenset[str]())
    return [rule.name for rule in broken(sql) if rule.name not in excused]


def _ask_linter(texts: Sequence[str]) -> Mapping[int, list[str]]:
    """The rules that each text breaks, by its number: one run, a file a text."""
    with TemporaryDirectory(prefix="lint-sql-") as folder:
        files = [Path(folder, f"{number}.sql") for number, _ in enumerate(texts)]
        for file, text in zip(files, texts, strict=True):
            file.write_text(f"{text.strip()};\n")
        command = [_LINTER, "--format", "json", *files]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode not in {0, _ERRORS_FOUND}:
        raise click.ClickException(f"dsql-lint ended with {done.returncode}: {done.stderr}")
    found = json.loads(done.stdout)["files"]
    return {int(Path(each["file"]).stem): _rules(each) for each in found}


def _rules(file: Mapping[str, object]) -> list[str]:
    diagnostics = file["diagnostics"]
    assert isinstance(diagnostics, list)
    if file["error"] is not None:
        raise click.ClickException(f"dsql-lint cannot read a statement: {file['error']}")
    return [each["rule"] for each in diagnostics]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@click.option("--quiet", is_flag=True, help="Only the count, and what is broken.")
def main(*, as_json: bool, quiet: bool) -> None:
    """Lint every statement that the library can send."""
    found = lint(inventory())
    faults = [f"{each.entry.name} {text}" for each in found for text in each.faults]
    if not quiet:
        click.echo(_as_json(found, faults) if as_json else _as_table(found))
    if not as_json:
        bad = sum(bool(each.faults) for each in found)
        excused = sum(each.entry.reason is not None for each in found)
        click.echo(f"{len(found)} statements, {excused} excused, {bad} broken")
    for fault in faults:
        click.echo(f"error: {fault}", err=True)
    sys.exit(1 if faults else 0)


def _as_json(found: Sequence[Linted], faults: Sequence[str]) -> str:
    statements = [
        {
            "statement": each.entry.name,
            "kind": each.entry.kind,
            "sentBy": each.entry.sent_by,
            "dsqlLint": each.linter,
            "ownRules": each.own,
            "reason": each.entry.reason,
            "example": each.entry.example,
        }
        for each in found
    ]
    return json.dumps({"statements": statements, "faults": faults}, indent=1)


def _as_table(found: Sequence[Linted]) -> str:
    rows = [("statement", "kind", "sent by", "dsql-lint", "own rules")]
    rows += [
        (
            each.entry.name,
            each.entry.kind,
            ", ".join(each.entry.sent_by),
            ", ".join(each.linter) or "ok",
            ", ".join(each.own) or "ok",
        )
        for each in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    for each, n in zip(found, range(1, len(lines)), strict=True):
        if each.entry.reason:
            lines[n] += f"  [{each.entry.reason}]"
    return "\n".join(lines)


if __name__ == "__main__":
    main()
