"""The demo's final report, as wide as its console."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from dsql_outbox.observability import attributes as names

from .results import Check, Results, Written, percentile
from .span_tree import SpanView
from .stages import Progress
from .trace_drawing import render_tree
from .workload import EVENT_TYPES, SHAPES

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
        console.print(line, highlight=False)
    console.print()
    for check in found:
        mark = "[green]ok[/]  " if check.held else "[red]FAIL[/]"
        console.print(f"  {mark} {check.text}: {check.found}", highlight=False)
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
    console.print(text, highlight=False, soft_wrap=True, markup=False)


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
    console.print(
        f"The most retried event, {written.event.id}: {written.receipt.attempts} attempts",
        highlight=False,
    )
    console.print(render_tree(trace, width=console.width))


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
