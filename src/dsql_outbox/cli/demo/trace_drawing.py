"""A trace as rich's text, for terminals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from .span_tree import SpanView, TreeRow, tree_rows

if TYPE_CHECKING:
    from rich.text import Text

_STYLES: Final = {"failed": "red", "done": "green", "wait": "dim", "head": "dim"}


def render_tree(spans: Sequence[SpanView], *, width: int = 80) -> "Text":
    """Draw the spans of one trace, one line per span, in at most `width` columns (40 or more).

    The lines are those of `tree_rows`. Colours show only on a terminal.
    """
    from rich.text import Text  # noqa: PLC0415 - 60 ms, only for drawing

    return Text("\n").join(map(_draw, tree_rows(spans, width=width)))


def _draw(row: TreeRow) -> "Text":
    from rich.text import Text  # noqa: PLC0415 - 60 ms, only for drawing

    style = _STYLES.get(row.kind, "")
    numbers = (row.numbers, "dim" if row.kind == "head" else "")
    return Text.assemble(
        (row.prefix, "dim"), (row.label, style), numbers, (row.bar, style or "cyan")
    )
