"""Printing: aligned text, or one JSON object per line.

All output passes this module, because it escapes control characters: text from events,
brokers and databases must not steer a terminal.
"""

import os
import re
import sys
import textwrap
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final, TypeVar

import click
import msgspec

from dsql_outbox.observability.shown_text import counted as counted  # noqa: PLC0414 - for commands
from dsql_outbox.observability.shown_text import duration as duration  # noqa: PLC0414 - for commands
from dsql_outbox.observability.shown_text import visible, visible_json

if TYPE_CHECKING:
    from dsql_outbox.operations.fills import FillProgress

T = TypeVar("T")

_WIDEST: Final = 100  # columns
_ROOM: Final = 4
"""The last cell of a row stands beside the others if it needs so many lines at most."""
_NONE: Final = frozenset({"", "-"})
_Print = Callable[[str], None]
_above: Final[list[_Print]] = []
"""Prints above the lines that a terminal shows live, if there are some."""


@contextmanager
def printing(above: _Print) -> Generator[None]:
    """Let `echo` print by `above` during the block, on a terminal."""
    _above.append(above)
    try:
        yield
    finally:
        _above.pop()


def echo(text: str, *, err: bool = False) -> None:
    """Print text as it is, and a line feed."""
    if _above and (sys.stderr if err else sys.stdout).isatty():
        _above[-1](text)
    else:
        click.echo(text, err=err)


def occupy_standard() -> None:
    """Open /dev/null on each of the descriptors 0, 1 and 2 that is closed.

    Call this before opening anything else. Otherwise the first connection would
    get the number of a closed descriptor, and our output would be sent to the
    database.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is `descriptor`


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line of text with its control characters escaped."""
    echo(visible(text), err=err)


def say_all(lines: Iterable[str]) -> None:
    """Print lines; a line break inside one of them starts a new line of output."""
    for line in lines:
        for part in line.split("\n"):
            say(part)


def shown_width() -> int | None:
    """The columns of the terminal, or COLUMNS for a pipe; None: a pipe without it, any number."""
    return get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else None


def say_fitting(text: str) -> None:
    """Print a line of text; a terminal shows as much of it as fits, and a pipe gets all."""
    width, shown = get_terminal_size().columns, visible(text)
    if sys.stdout.isatty() and len(shown) > width:
        shown = f"{shown[: width - 1]}…"
    echo(shown)


def folded(text: str, hang: int = 2) -> list[str]:
    """A text as lines that fit a terminal; all but the first are `hang` columns to the right."""
    width, shown = shown_width(), visible(text)
    if width is None or len(shown) <= width:
        return [shown]
    return textwrap.wrap(shown, width, subsequent_indent=" " * hang, break_on_hyphens=False)


def say_folded(text: str, *, err: bool = False) -> None:
    """Print a line of text. A terminal shows it `folded`, and a pipe gets it in one line."""
    for line in folded(text):
        say(line, err=err)


def say_wrapped(text: str) -> None:
    """Print a text in lines that fit the terminal, 100 columns at most."""
    width = min(get_terminal_size().columns, _WIDEST)
    say_all(textwrap.wrap(visible(text), width, break_long_words=False, break_on_hyphens=False))


def json_line(value: object) -> None:
    """Print one value as a line of JSON."""
    echo(visible_json(msgspec.json.encode(value)).decode())


def columns(lines: Sequence[Sequence[str]], width: int | None = None) -> list[str]:
    """Rows of equally many cells as lines of text with aligned columns, which fit `width`.

    Long cells are folded. If little room is left for the last one, it has lines of its own below
    the others.
    """
    rows = [tuple(map(visible, line)) for line in lines]
    every = [*zip(*rows, strict=True)]
    widths = [max(map(len, column)) for column in every]
    if width is None or _total(widths) <= width:
        return [_line(row, widths) for row in rows]
    least = [max(len(word) for cell in column for word in cell.split() or [""]) for column in every]
    fitted = _fitted(widths, least, width)
    if fitted is None or (len(widths) > 1 and widths[-1] > _ROOM * fitted[-1]):
        del widths[-1:]
        fitted = _fitted(widths, least, width) or _fitted(widths, [1] * len(widths), width) or []
    found: list[str] = []
    for row in rows:
        beside, below = row[: len(fitted)], row[len(fitted) :]
        folded = [_folded(cell, wide) for cell, wide in zip(beside, fitted, strict=True)]
        found += [_line(each, fitted) for each in zip_longest(*folded, fillvalue="")]
        found += [
            f"  {part}" for cell in below if cell not in _NONE for part in _folded(cell, width - 2)
        ]
    return found


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(map(str.ljust, cells, widths)).rstrip()


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _fitted(widths: Sequence[int], least: Sequence[int], width: int) -> list[int] | None:
    """Narrow the widest columns until all fit, none below its least; None if they never fit."""
    found = [*widths]
    while _total(found) > width:
        above = [n for n, wide in enumerate(found) if wide > least[n]]
        if not above:
            return None
        found[max(above, key=found.__getitem__)] -= 1
    return found


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def aligned(lines: Sequence[Sequence[str]]) -> None:
    """Print rows of equally many cells in aligned columns, which fit a terminal."""
    say_all(columns(lines, shown_width()))


def listed(
    found: Iterable[T],
    header: Sequence[str],
    cells: Callable[[T], Sequence[str]],
    *,
    as_json: bool,
    none: str,
) -> None:
    """Print objects as lines of JSON, or else as a table; `none` stands for an empty one."""
    if as_json:
        for each in found:
            json_line(each)
        return
    rows = [*map(cells, found)]
    aligned([header, *rows]) if rows else say(none)


def one_line(text: str) -> str:
    """`text` on one line: each run of white space becomes one space."""
    return " ".join(text.split())


_PLACE: Final = re.compile(r"(?:.*[/\\])?([^/\\]+:\d+ .+)")
"""A place in the code: the folder, which a line has no room for, and the rest."""


def with_first_place(error: str) -> str:
    """An error on one line: of that of a function, what it raised and where in the user's code.

    The place is that of the function itself, ``FILE:LINE NAME`` without the folder.
    """
    raised, _, places = error.partition("\n  ")
    place = _PLACE.fullmatch(places.partition("\n")[0])
    return one_line(f"{raised} at {place[1]}" if place else raised)


def counts(numbers: Mapping[str, int]) -> list[str]:
    """``NAME: NUMBER`` for each number that is not 0."""
    return [f"{name}: {number:,}" for name, number in numbers.items() if number]


def of_about(done: int, total: int | None) -> str:
    """``of about TOTAL``, unless an estimate is missing or was too low."""
    return f" of about {total:,}" if total and total >= done else ""


def filled_state(state: str, fill: "FillProgress | None") -> str:
    """The state of a target, and how far its fill is or what it lacks."""
    if fill is None:
        return state
    if state == "filling" and fill.total:
        return f"filling {min(99, 100 * fill.read // fill.total)} %"
    return f"{state}{lacking(fill)}"


def lacking(fill: "FillProgress") -> str:
    """What a target lacks of the events from the start, after a comma; empty if nothing."""
    if not fill.forgotten:
        return ""
    return f", incomplete: {counted(fill.forgotten, 'event')} of any type had been forgotten"
