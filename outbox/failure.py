"""What an error of the database means, decided here and nowhere else; no I/O.

The SQLSTATE decides. The text decides only where there is none, since the id of an
event may well contain ``oc000``. Sources: PostgreSQL's error codes (Appendix A);
Aurora DSQL's concurrency control pages for 40001 with OC000 and OC001 in the text.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Final, NamedTuple

import psycopg
from psycopg import errors

from .errors import SchemaError


class FailureKind(Enum):
    """One meaning each. Nothing was committed, but for `IN_DOUBT`, where nobody knows."""

    CONFLICT = "conflict"
    """Another transaction was faster."""
    SCHEMA_CHANGED = "schema changed"
    """A conflict with a change of a table (OC001); each session of Aurora DSQL meets it once."""
    COLLISION = "collision"
    """A unique key was taken: by this event's id, or by a concurrent first insert."""
    EXISTS = "exists"
    """The schema, table or type to be created is there: another session created it."""
    OUTAGE = "outage"
    """The database cannot be reached, or is full."""
    CROWDED = "crowded"
    """Too many connections are opened at once: a short wait would add to them."""
    OUT_OF_MEMORY = "out of memory"
    """The server has no memory for this statement now."""
    BUSY = "busy"
    """Aurora DSQL says "server unavailable" under heavy load; the connection stays."""
    INTERNAL = "internal"
    """The server met a defect of its own, or two changes of its catalog at once."""
    IN_DOUBT = "in doubt"
    """No answer says what became of a statement that was sent: committed or not."""
    REFUSED = "refused"
    """The server refuses the login, or has no such database."""
    INTERRUPTED = "interrupted"
    """The server ended the statement: a timeout, a limit, an operator, its disk."""
    READ_ONLY = "read-only"
    """The server takes no writes: a standby, or a former primary after a failover."""
    TABLES_MISSING = "tables missing"
    """A table or its schema is not there."""
    TABLES_OUTDATED = "tables outdated"
    """A column is not there."""
    FATAL = "fatal"
    """All else: trying again changes nothing."""


class DatabaseFailure(NamedTuple):
    """A classified exception. `oc_class` is ``OC000`` or ``OC001``, if the database said so."""

    kind: FailureKind
    error: Exception
    sqlstate: str | None
    oc_class: str | None


class Moved(Exception):  # noqa: N818 - reads as what happened
    """A conflict that our own transaction found: rows that it read are not there any more."""


_K = FailureKind

CONFLICTS: Final = frozenset({_K.CONFLICT, _K.SCHEMA_CHANGED})

RACES: Final = CONFLICTS | {_K.COLLISION}
"""Another session was faster: a write tries again soon, a few times."""

OUTAGES: Final = frozenset(
    {_K.OUTAGE, _K.CROWDED, _K.OUT_OF_MEMORY, _K.BUSY, _K.INTERNAL, _K.IN_DOUBT}
)
"""The database cannot answer now: a write tries again for a while."""

RETRIED: Final = RACES | OUTAGES
"""What a write tries again at all."""

SERVER_TROUBLE: Final = frozenset({_K.BUSY, _K.INTERNAL})
"""The server failed, but not the connection."""

PASSING: Final = CONFLICTS | OUTAGES | {_K.REFUSED, _K.INTERRUPTED}
"""What a program that runs for long waits for, rather than end."""

_UNREACHABLE: Final = frozenset({_K.OUTAGE, _K.CROWDED, _K.OUT_OF_MEMORY, _K.BUSY, _K.REFUSED})
_NOT_COMMITTED: Final = CONFLICTS | {_K.OUTAGE, _K.CROWDED, _K.OUT_OF_MEMORY}

NO_SUCH_FORM: Final = (errors.FeatureNotSupported, errors.SyntaxError, errors.DatatypeMismatch)
"""How a database refuses a probe of data-modifying CTEs: a statement that changes nothing.

Never ask this of a live statement: "cached plan must not change result type" is 0A000 too.
"""

_STATES: Final[Mapping[FailureKind, tuple[str, ...]]] = {
    _K.CONFLICT: ("40001", "40P01", "OC000", "OC001"),
    _K.COLLISION: ("23505",),
    _K.EXISTS: ("42P06", "42P07", "42710"),
    _K.OUTAGE: ("53000", "53100", "53300"),
    _K.CROWDED: ("53400",),
    _K.OUT_OF_MEMORY: ("53200",),
    _K.INTERNAL: ("XX000",),
    _K.IN_DOUBT: ("40003", "57P01", "57P02", "57P03", "57P05"),  # and all of class 08
    _K.REFUSED: ("28000", "28P01", "3D000", "57P04"),
    _K.READ_ONLY: ("25006",),
    _K.TABLES_MISSING: ("42P01", "3F000"),
    _K.TABLES_OUTDATED: ("42703",),
}
_KINDS: Final = {state: kind for kind, states in _STATES.items() for state in states}

_CONFLICT_TEXT: Final = re.compile(
    "oc00[01]|conflicts with another transaction|mutation conflicts|transaction conflict"
    "|change conflicts|schema has been updated by another transaction",
    re.IGNORECASE,
)
_OC_CLASS: Final = re.compile("OC00[01]", re.IGNORECASE)
_BUSY_TEXT: Final = "server unavailable"
_REFUSED_TEXT: Final = re.compile(
    "authentication failed|does not exist|pg_hba.conf|access denied", re.IGNORECASE
)

_SCHEMA_DEFECTS: Final = {
    _K.TABLES_MISSING: "lacks the outbox tables: run `dsql-outbox schema apply`",
    _K.TABLES_OUTDATED: "is older than this version: run `dsql-outbox schema apply`",
}


def classify(error: Exception, *, sent: bool) -> DatabaseFailure:
    """Classify an exception; `sent` tells whether something to be committed left for the server.

    Only what was sent can be in doubt.
    """
    if isinstance(error, Moved):
        return DatabaseFailure(_K.CONFLICT, error, None, None)
    found = _driver_error(error)
    sqlstate = found.sqlstate if found else None
    text = " ".join(str(e) for e in unwrap(error))
    if found and sqlstate:
        kind = _kind_of_state(found, sqlstate, text, sent=sent)
    else:
        kind = _kind_of_text(found, error, text, sent=sent)
    oc_class = _oc_class(f"{sqlstate} {text}") if kind is _K.CONFLICT else None
    if oc_class == "OC001":
        kind = _K.SCHEMA_CHANGED
    return DatabaseFailure(kind, error, sqlstate, oc_class)


def kind_of(error: Exception) -> FailureKind:
    """What the error of a statement means that may run twice; never `IN_DOUBT`."""
    return classify(error, sent=False).kind


def is_retryable(error: Exception) -> bool:
    """Whether a transaction was certainly not committed, and may well be if run again.

    True for a conflict and for a server that is full, also under a wrapper such
    as SQLAlchemy's. False for a connection that was lost: if that was at COMMIT,
    the transaction may be committed. A unique violation is no conflict here.
    """
    return classify(error, sent=True).kind in _NOT_COMMITTED


def is_unreachable(error: Exception) -> bool:
    """Whether the database cannot be reached, or not now."""
    return kind_of(error) in _UNREACHABLE


def schema_defect(error: Exception) -> str | None:
    """What is wrong with the schema, as the end of a sentence; None if it is another error.

    Errors under a wrapper are not looked at: they may be about tables of the caller.
    """
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    kind = _KINDS.get(sqlstate or "")
    return _SCHEMA_DEFECTS.get(kind) if kind else None


def schema_error(error: Exception, schema: str) -> SchemaError | None:
    """The error of one of our statements as `SchemaError`, if a table or column is missing."""
    defect = schema_defect(error)
    if defect is None:
        return None
    named = SchemaError(f"schema {schema} {defect}")
    named.__cause__ = error
    return named


@contextmanager
def tables_expected(schema: str) -> Generator[None]:
    """Raise `SchemaError` for a table or column that is missing."""
    try:
        yield
    except psycopg.Error as error:
        named = schema_error(error, schema)
        if named is None:
            raise
        raise named from error


def unwrap(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what SQLAlchemy keeps in ``orig``, and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "orig", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__


def _driver_error(error: BaseException) -> psycopg.Error | None:
    """The driver's error, also from under a wrapper; one with a SQLSTATE first."""
    found = [e for e in unwrap(error) if isinstance(e, psycopg.Error)]
    return next((e for e in found if e.sqlstate), found[0] if found else None)


def _kind_of_state(found: psycopg.Error, sqlstate: str, text: str, *, sent: bool) -> FailureKind:
    kind = _K.IN_DOUBT if sqlstate.startswith("08") else _KINDS.get(sqlstate)
    if kind is None:
        return _K.INTERRUPTED if isinstance(found, psycopg.OperationalError) else _K.FATAL
    if kind is _K.INTERNAL and not sent:
        return _K.BUSY if _BUSY_TEXT in text else _K.INTERNAL
    if kind in {_K.INTERNAL, _K.IN_DOUBT}:
        return _K.IN_DOUBT if sent else _K.OUTAGE
    return kind


def _kind_of_text(
    found: psycopg.Error | None, error: Exception, text: str, *, sent: bool
) -> FailureKind:
    if isinstance(found, (psycopg.DataError, psycopg.ProgrammingError)):
        return _K.IN_DOUBT if sent else _K.FATAL  # of the driver's own code, on our side
    if found is None and sent:
        return _K.IN_DOUBT  # a defect, as in reading the answer: its text proves nothing
    if _CONFLICT_TEXT.search(text):
        return _K.CONFLICT
    if sent:
        return _K.IN_DOUBT
    if not isinstance(found or error, (psycopg.Error, OSError)):
        return _K.FATAL
    return _K.REFUSED if _REFUSED_TEXT.search(text) else _K.OUTAGE


def _oc_class(text: str) -> str | None:
    found = _OC_CLASS.search(text)
    return found.group().upper() if found else None
