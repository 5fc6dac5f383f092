"""The demo's final report, as wide as its console."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dsql_outbox.cli.demo.sample_events import EVENT_TYPES, SHAPES
from dsql_outbox.cli.output import counted
from dsql_outbox.observability import attributes as names

from .results import Check, Results, Written, percentile
from .span_tree import SpanView, render_tree
from .stages import TURNS, Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_JAEGER_PORT: Final = 16686


def show(
    console: "Console", results: Results, found: Sequence[Check], trace: Sequence[SpanView]
) -> None:
    """Print the tables, the checks and the trace of the most retried event."""
    for part in (_events(results), _latencies(results), _verdicts(found)):
        console.print()
        console.print(part)
    console.print()
    _show_trace(console, results.most_retried(), trace)


def trace_of(written: Written, spans: Sequence[SpanView]) -> list[SpanView]:
    """The spans of the trace of an event."""
    mine = str(written.event.id)
    traces = {span.trace_id for span in spans if span.attributes.get(names.EVENT_ID) == mine}
    return [span for span in spans if span.trace_id in traces]


def show_page(
    console: "Console", otlp: str, trace: Sequence[SpanView], lost: Sequence[str]
) -> None:
    """Print where the trace can be seen, or why `otlp` did not get it."""
    if lost:
        text = f"No server accepted the spans at {otlp}: {', '.join(lost)}"
    else:
        text = f"In Jaeger: {_jaeger_beside(otlp)}/trace/{trace[0].trace_id}"
    console.print(text, soft_wrap=True, markup=False)


def _jaeger_beside(otlp: str) -> str:
    """Return the base URL of a Jaeger that takes spans at this URL, at its usual port."""
    host = urlsplit(otlp).hostname or "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{_JAEGER_PORT}"


def _table(texts: Sequence[str], numbers: Sequence[str]) -> "Table":
    """A table with columns of texts and columns of numbers."""
    from rich import box  # noqa: PLC0415 - rich takes 60 ms to import
    from rich.table import Table  # noqa: PLC0415 - as above

    # As narrow as can be: that of the events needs 59 columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for name in texts:
        table.add_column(name)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _events(results: Results) -> "Table":
    table = _table(("shape", "event type"), ("sent", "stored", "retried", "delivered"))
    for shape in SHAPES:
        for kind in EVENT_TYPES:
            writes = results.of(shape, kind.event_type)
            table.add_row(shape, kind.event_type, *map(str, _counts(results, writes)))
    return table


def _counts(results: Results, writes: Sequence[Written]) -> tuple[int, int, int, int]:
    """How many events were sent, stored, retried and delivered."""
    receipts = [w.receipt for w in writes if w.receipt]
    retried = sum(receipt.attempts > 1 for receipt in receipts)
    return len(writes), len(receipts), retried, results.arrivals_of(writes)


def _latencies(results: Results) -> "Table":
    stored = [(w.seconds, w.receipt.conflicts) for w in results.written if w.receipt]
    rows = {
        "write, no conflict": [seconds for seconds, conflicts in stored if not conflicts],
        "write, with conflict": [seconds for seconds, conflicts in stored if conflicts],
        "commit to broker": [arrived.lag for arrived in results.arrived],
    }
    table = _table(("latency in ms",), ("events", "     p50", "     p95", "     max"))
    for name, seconds in rows.items():
        ranked = (percentile(seconds, share) * 1000 for share in (0.5, 0.95, 1.0))
        table.add_row(name, str(len(seconds)), *(f"{ms:.1f}" if seconds else "-" for ms in ranked))
    return table


def _verdicts(found: Sequence[Check]) -> "Table":
    from rich.table import Table  # noqa: PLC0415 - rich takes 60 ms to import

    table = Table.grid(padding=(0, 1))
    for check in found:
        mark = "  [green]ok[/]" if check.held else "  [red]FAIL[/]"
        table.add_row(mark, f"{check.text}: {check.found}")
    return table


def _show_trace(console: "Console", written: Written, trace: Sequence[SpanView]) -> None:
    if written.receipt is None:
        return
    attempts = counted(written.receipt.attempts, "attempt")
    console.print(f"The most retried event, {written.event.id}: {attempts}")
    console.print(render_tree(trace, width=console.width))


@contextmanager
def counting(console: "Console") -> Generator[tuple[Progress, Progress]]:
    """Show how many events are written and delivered: as bars, elsewhere as two lines at the end.

    Yields two functions, for written and for delivered, that add to the counts.
    """
    from rich import progress  # noqa: PLC0415 - rich takes 60 ms to import

    name = progress.TextColumn("{task.description:<9}")
    number = progress.TextColumn("{task.completed:.0f} events")
    bar = progress.BarColumn(bar_width=min(50, console.width - 20))
    columns = (bar, progress.MofNCompleteColumn()) if console.is_terminal else (number,)
    total = len(SHAPES) * len(EVENT_TYPES) * TURNS
    with progress.Progress(name, *columns, console=console) as bars:
        tasks = bars.add_task("written", total=total), bars.add_task("delivered", total=total)
        yield partial(bars.advance, tasks[0]), partial(bars.advance, tasks[1])
