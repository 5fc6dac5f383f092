"""What a failure means: may the write be retried, and is its outcome known.

SQLSTATE decides; the text only where there is none, since an event's id may
well contain ``oc000``. Sources: Aurora DSQL's concurrency control pages for
40001 with OC000 and OC001 in the text; PostgreSQL's error codes (Appendix A).
"""

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

import psycopg


class FailureKind(Enum):
    """The answer to both questions at once."""

    CONFLICT = "conflict"
    """Not committed; another transaction was faster. Retry at once, a few times."""
    OUTAGE = "outage"
    """Not committed; the database cannot be reached or is full. Retry for a while."""
    IN_DOUBT = "in_doubt"
    """No answer of the server tells what became of a statement that was sent: committed or not."""
    COLLISION = "collision"
    """A unique key was taken: by this event's id, or by a concurrent first insert."""
    FATAL = "fatal"
    """Not committed; trying again changes nothing."""


class DatabaseFailure(NamedTuple):
    """A classified exception. `oc_class` is ``OC000`` or ``OC001``, if the database said so."""

    kind: FailureKind
    error: Exception
    sqlstate: str | None
    oc_class: str | None


_CONFLICT_STATES: Final = {"40001", "40P01", "OC000", "OC001"}
_OUTAGE_STATES: Final = {"53300", "53400"}
_IN_DOUBT_STATES: Final = {"40003", "57P01", "57P02", "57P03", "57P05", "XX000"}
_UNIQUE_VIOLATION: Final = "23505"

_CONFLICT_TEXT: Final = re.compile(
    "oc00[01]|conflicts with another transaction|mutation conflicts|transaction conflict"
    "|change conflicts|schema has been updated by another transaction",
    re.IGNORECASE,
)
_OC_CLASS: Final = re.compile("OC00[01]", re.IGNORECASE)
_REFUSED: Final = re.compile(
    "authentication failed|does not exist|pg_hba.conf|access denied", re.IGNORECASE
)


def classify(error: Exception, *, sent: bool) -> DatabaseFailure:
    """Classify what an attempt raised; `sent` tells whether the write left for the server."""
    found = _driver_error(error)
    sqlstate = found.sqlstate if found else None
    text = _text(error)
    kind = _kind_of_state(sqlstate) if sqlstate else _kind_of_text(found, error, text, sent=sent)
    oc_class = _OC_CLASS.search(f"{sqlstate} {text}") if kind is FailureKind.CONFLICT else None
    return DatabaseFailure(kind, error, sqlstate, oc_class.group().upper() if oc_class else None)


def _kind_of_state(sqlstate: str) -> FailureKind:
    if sqlstate in _CONFLICT_STATES:
        return FailureKind.CONFLICT
    if sqlstate == _UNIQUE_VIOLATION:
        return FailureKind.COLLISION
    if sqlstate in _OUTAGE_STATES:
        return FailureKind.OUTAGE
    if sqlstate in _IN_DOUBT_STATES or sqlstate.startswith("08"):
        return FailureKind.IN_DOUBT
    return FailureKind.FATAL


def _kind_of_text(
    found: psycopg.Error | None, error: Exception, text: str, *, sent: bool
) -> FailureKind:
    if isinstance(found, (psycopg.DataError, psycopg.ProgrammingError)):
        return (
            FailureKind.IN_DOUBT if sent else FailureKind.FATAL
        )  # of the driver's own code, on our side
    if found is None and sent:
        return FailureKind.IN_DOUBT  # a defect, as in reading the answer: its text proves nothing
    if _CONFLICT_TEXT.search(text):
        return FailureKind.CONFLICT
    if sent:
        return FailureKind.IN_DOUBT
    lost = isinstance(found or error, (psycopg.Error, OSError))
    return FailureKind.OUTAGE if lost and not _REFUSED.search(text) else FailureKind.FATAL


def _driver_error(error: BaseException) -> psycopg.Error | None:
    """The driver's error, also from under a wrapper; one with a SQLSTATE first."""
    found = [e for e in unwrap(error) if isinstance(e, psycopg.Error)]
    return next((e for e in found if e.sqlstate), found[0] if found else None)


def unwrap(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what SQLAlchemy keeps in ``orig``, and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "orig", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__


def _text(error: BaseException) -> str:
    return " ".join(str(e) for e in unwrap(error))
