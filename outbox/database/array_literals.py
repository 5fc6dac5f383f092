"""PostgreSQL array literals: one string per column of a batch.

psycopg adapts a Python list of str about five times slower than one string that
already is the array literal. The measurement is in
docs/decisions/2026-11-24-array-literals-instead-of-lists.md.
"""

from collections.abc import Iterable


def array_literal(values: Iterable[object]) -> str:
    r"""Return an array literal with every element quoted, and None as NULL.

    Without quotes, PostgreSQL reads the text ``NULL`` as a null element
    (PostgreSQL manual, "Array Input and Output Syntax").
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
    """Return an array literal without quotes.

    Use it for numbers, booleans, UUIDs and hex text. No element may be None.
    """
    return "{" + ",".join(map(str, values)) + "}"
