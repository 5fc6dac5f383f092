"""The demo's two counters: bars on a terminal, lines elsewhere."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .stages import Progress

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def counting(console: "Console", total: int) -> Generator[tuple[Progress, Progress]]:
    """Show how many of `total` events are written and delivered.

    Yields two functions, for written and for delivered, that add to the counts.
    """
    if console.is_terminal:
        with _bars(console, total) as progress:
            yield progress
        return
    counts = {"written": 0, "delivered": 0}

    def counter(name: str) -> Progress:
        def count(more: int) -> None:
            counts[name] += more

        return count

    yield counter("written"), counter("delivered")
    for name, count in counts.items():
        console.print(f"{name:<9} {count} events", highlight=False)


@contextmanager
def _bars(console: "Console", total: int) -> Generator[tuple[Progress, Progress]]:
    from rich import progress  # noqa: PLC0415 - 60 ms, for terminals

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(bar_width=min(50, console.width - 20)),
        progress.MofNCompleteColumn(),
    )
    with progress.Progress(*columns, console=console) as bars:

        def bar(name: str) -> Progress:
            task = bars.add_task(f"{name:<9}", total=total)

            def advance(more: int) -> None:
                bars.advance(task, more)

            return advance

        yield bar("written"), bar("delivered")
