"""The progress of a command on standard error: in place on a terminal, elsewhere now and then."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from dsql_outbox.observability.shown_text import visible

from .output import printing, say

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY: Final = 10.0
"""Seconds between two lines where standard error is no terminal."""

_ECHO: Final = 3
"""Columns left free at the right: a terminal shows Ctrl-C there as ^C."""


def is_live() -> bool:
    """Whether standard error is a terminal that can replace lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def progress(text: Callable[[], str]) -> Generator[None]:
    """Show `text()` while the block runs: `live` on a terminal, elsewhere as `lines`."""
    with live(text) if is_live() else lines(text):
        yield


@contextmanager
def live(text: Callable[[], str]) -> Generator[Callable[[str], None]]:
    """Show `text()` in place on the terminal while the block runs, and erase it at the end.

    Output of the block appears above it. Another thread calls `text`. Each line of the text
    is cut to the width of the terminal. Yields a function that prints above the text without
    breaking lines.
    """
    from rich.console import Console  # noqa: PLC0415 - 60 ms, for terminals only
    from rich.constrain import Constrain  # noqa: PLC0415 - for terminals only
    from rich.live import Live  # noqa: PLC0415 - for terminals only
    from rich.text import Text  # noqa: PLC0415 - for terminals only

    console = Console(stderr=True)

    def drawn() -> "RenderableType":
        lines = "\n".join(map(visible, text().split("\n")))
        return Constrain(
            Text(lines, no_wrap=True, overflow="ellipsis"), max(1, console.width - _ECHO)
        )

    def above(line: str) -> None:
        console.out(line, highlight=False)

    with (
        Live(
            get_renderable=drawn,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ),
        printing(above),
    ):
        yield above


@contextmanager
def lines(
    text: Callable[[], str],
    *,
    every: float = EVERY,
    tell: Callable[[str], None] = lambda line: say(line, err=True),
) -> Generator[None]:
    """Give `tell` the text every `every` seconds while the block runs, if it has changed.

    Another thread calls both.
    """
    ended = Event()

    def work() -> None:
        shown = text()
        while not ended.wait(every):
            if (line := text()) != shown:
                shown = line
                tell(line)

    thread = Thread(target=work, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
