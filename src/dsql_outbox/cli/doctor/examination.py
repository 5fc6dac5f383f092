"""Runs every check and probe; the failure of one becomes its finding."""

from collections.abc import Callable, Iterator, Mapping

import psycopg

from dsql_outbox.outbox import (
    DOCTOR,
    OutboxError,
    is_unreachable,
    told,
)

from .examined_database import ExaminedDatabase
from .finding import Finding, Verdict
from .scratch_table import scratch


def findings(
    visit: ExaminedDatabase,
    questions: Mapping[str, Callable[[ExaminedDatabase], Iterator[Finding]]],
) -> Iterator[Finding]:
    """Run each check in turn; a failed one does not stop the others."""
    for name, ask in questions.items():
        try:
            found = _asked(visit, ask)
        except (psycopg.Error, OutboxError) as error:
            found = [failure(name, error)]
        yield from found


def _asked(
    visit: ExaminedDatabase, ask: Callable[[ExaminedDatabase], Iterator[Finding]]
) -> list[Finding]:
    def answer() -> list[Finding]:
        visit.begin_question()
        return list(ask(visit))

    return DOCTOR.run(answer)


def failure(name: str, error: Exception) -> Finding:
    """The finding for a check that raised `error`.

    Its verdict is `fail` if the database is out of reach, else `unknown`.
    """
    if not isinstance(error, psycopg.Error):
        return Finding(name, "unknown", str(error))
    verdict: Verdict = "fail" if is_unreachable(error) else "unknown"
    remedy = None
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        remedy = "ask again as the owner of the tables"
    text = f"{error.sqlstate}: {told(error)}" if error.sqlstate else told(error)
    return Finding(name, verdict, text, remedy, sqlstate=error.sqlstate)


def probed(
    visit: ExaminedDatabase, probes: Mapping[str, Callable[[ExaminedDatabase], Iterator[Finding]]]
) -> Iterator[Finding]:
    """Run probes as `findings` does, inside a scratch table that is dropped afterwards."""
    if not probes:
        return
    try:
        with scratch(visit):
            yield from findings(visit, probes)
    except (psycopg.Error, OutboxError) as error:
        yield failure("probe", error)
