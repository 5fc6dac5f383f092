"""The probes: each tries a feature that the documentation leaves open, in the scratch table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
import psycopg

from .examined_database import ExaminedDatabase, run
from .finding import Finding, refused
from .statement_probes import arrays, burial_forms, read_forms, rows_read, write_forms

Probe = Callable[[ExaminedDatabase], Iterator[Finding]]

_EXACT: Final = r'{"b": "\u0000", "a": 1, "a" : 2, "lone": "\ud800", "big": 1e200000}'

_REFUSED: Final = (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError)


def pipeline(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether BEGIN, a write and COMMIT go in one round trip."""
    position, connection = visit.new_position(), visit.connection
    with connection.pipeline():
        connection.execute("BEGIN")
        run(connection, visit.schema, "doctor_insert", position=position)
        ended = connection.execute("COMMIT")
    rows = [(ended.statusmessage, *visit.rows("doctor_count", position=position)[0])]
    works = "works, COMMIT included: one round trip"
    yield _answered("pipeline", [("COMMIT", 1)], rows, works)


def json_exact(visit: ExaminedDatabase) -> Iterator[Finding]:
    """Whether a json column returns a text unchanged."""
    try:
        rows = visit.rows("doctor_json", {"doc": _EXACT}, position=visit.new_position())
    except (*_REFUSED, psycopg.DataError) as error:
        text = f"refused with {error.sqlstate}: events with such texts cannot be stored"
        yield refused("json", "fail", text, error, "use another database")
        return
    same = "exact: order, spaces, repeated keys, \\u0000, lone surrogates, 1e200000"
    yield _answered("json", [(_EXACT,)], rows, same)


def _answered(name: str, expected: Sequence[object], rows: Sequence[object], works: str) -> Finding:
    if list(rows) == expected:
        return Finding(name, "ok", works)
    return Finding(name, "fail", f"answered {_text(rows)} instead of {_text(expected)}")


def _text(rows: Sequence[object]) -> str:
    return msgspec.json.encode(rows, enc_hook=str).decode()


PROBES: Final[Mapping[str, Probe]] = {
    "modifying CTE": write_forms,
    "pipeline": pipeline,
    "lateral read": read_forms,
    "row comparison": rows_read,
    "unnest": arrays,
    "burial": burial_forms,
    "json": json_exact,
}
"""In the order in which they are made and shown."""
