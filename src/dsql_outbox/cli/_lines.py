"""Rows on standard output: aligned text for people, a JSON object a line for machines."""

from collections.abc import Sequence

import click
import msgspec


def json_line(value: msgspec.Struct) -> None:
    """Print one object as a line."""
    click.echo(msgspec.json.encode(value))


def aligned(lines: Sequence[Sequence[str]]) -> None:
    """Print lines of as many cells each, in columns; the last may be of any width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        click.echo("  ".join([*cells, line[-1]]).rstrip())


def one_line(text: str) -> str:
    """A text without line breaks and runs of blanks."""
    return " ".join(text.split())


def counted(count: int, what: str) -> str:
    """A number with its noun, in the plural but for one."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
