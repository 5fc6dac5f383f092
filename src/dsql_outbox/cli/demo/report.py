"""The demo's final report, as wide as its console."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dsql_outbox.cli.sample_events import EVENT_TYPES, SHAPES
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
    """Print the table, the numbers, the checks and the trace of the most retried event."""
    console.print(_table(results))
    console.print()
    for line in _numbers(results):
        console.print(line)
    console.print()
    for check in found:
        mark = "[green]ok[/]  " if check.held else "[red]FAIL[/]"
        console.print(f"  {mark} {check.text}: {check.found}")
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


def _table(results: Results) -> "Table":
    from rich import box  # noqa: PLC0415 - rich takes 60 ms to import
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("shape")
    table.add_column("event type")
    for name in ("sent", "stored", "retried", "delivered"):
        table.add_column(name, justify="right")
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


def _numbers(results: Results) -> list[str]:
    retries = sum(w.receipt.attempts - 1 for w in results.written if w.receipt)
    lost = sum(w.receipt is None for w in results.written)
    calm = [w.seconds for w in results.written if w.receipt and not w.receipt.conflicts]
    retried = [w.seconds for w in results.written if w.receipt and w.receipt.conflicts]
    return [
        f"  conflicts {results.conflicts()}, retries {retries}, lost {lost}",
        f"  write, no conflict    {_latency(calm)}",
        f"  write, with conflict  {_latency(retried)}",
        f"  commit to broker      {_latency([a.lag for a in results.arrived])}",
    ]


def _latency(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none"
    p50, p95, most = (percentile(seconds, share) * 1000 for share in (0.5, 0.95, 1.0))
    return f"p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   max {most:6.1f} ms   of {len(seconds)}"


def _show_trace(console: "Console", written: Written, trace: Sequence[SpanView]) -> None:
    if written.receipt is None:
        return
    attempts = f"{written.receipt.attempts} attempts"
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
