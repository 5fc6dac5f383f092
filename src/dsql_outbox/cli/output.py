"""Rows on standard output: aligned text for people, a JSON object a line for machines."""

from collections.abc import Iterable, Sequence

import click
import msgspec

from dsql_outbox.observability import visible, visible_json


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line, each control character in it made visible: the one way to text output."""
    click.echo(visible(text), err=err)


def say_all(lines: Iterable[str]) -> None:
    """Print lines; a line break within a text of ours begins another line."""
    for line in lines:
        for part in line.split("\n"):
            say(part)


def json_line(value: object) -> None:
    """Print one value as a line of JSON."""
    click.echo(visible_json(msgspec.json.encode(value)))


def aligned(lines: Sequence[Sequence[str]]) -> None:
    """Print lines of as many cells each, in columns; the last may be of any width."""
    lines = [tuple(map(visible, line)) for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        say("  ".join([*cells, line[-1]]).rstrip())


def one_line(text: str) -> str:
    """A text without line breaks and runs of blanks."""
    return " ".join(text.split())


def counted(count: int, what: str) -> str:
    """A number with its noun, in the plural but for one."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
