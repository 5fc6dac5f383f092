"""PostgreSQL array literals: one text a column.

psycopg adapts a Python list of str about five times slower than one string
that already is the array (measured: docs/decisions/2026-11-24-array-literals-instead-of-lists.md).
"""

from collections.abc import Iterable


def array_literal(values: Iterable[object]) -> str:
    r"""An array as PostgreSQL reads it: every element quoted, None as NULL.

    Quoting all keeps a value such as the text ``NULL`` from being taken for
    nothing (PostgreSQL, "Array Input and Output Syntax").
    """
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: object) -> str:
    if value is None:
        return "NULL"
    text = value if isinstance(value, str) else str(value)
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if '"' in text:
        text = text.replace('"', '\\"')
    return f'"{text}"'


def plain_array(values: Iterable[object]) -> str:
    """An array of what needs no quotes and is never None: numbers, booleans, ids, hex."""
    return "{" + ",".join(map(str, values)) + "}"
