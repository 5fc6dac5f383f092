"""PostgreSQL array literals: one string per column of a batch.

psycopg adapts a Python list of str about five times slower than one string that
already is the array literal. The measurement is in
docs/decisions/2026-11-24-array-literals-instead-of-lists.md.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode
_CONTROL: Final = re.compile(r"[\x00-\x1f]").search


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


def text_array(texts: Sequence[str]) -> str:
    """Return the `array_literal` of texts. It is faster, because it makes no text per element."""
    return array_literal(texts) if _CONTROL("".join(texts)) else _as_json(texts)


def json_array(documents: Sequence[str]) -> str:
    """Return the `array_literal` of JSON texts: control characters are only white space there."""
    text = "".join(documents)
    if "\n" in text or "\r" in text or "\t" in text:
        return array_literal(documents)
    return _as_json(documents)


def _as_json(texts: Sequence[str]) -> str:
    """Return an array literal: JSON with braces, if no control character must be escaped."""
    return f"{{{_encode(texts)[1:-1].decode()}}}"


def plain_array(values: Iterable[object]) -> str:
    """Return an array literal without quotes.

    Use it for numbers, booleans, UUIDs and hex text. No element may be None.
    """
    return "{" + ",".join(map(str, values)) + "}"
