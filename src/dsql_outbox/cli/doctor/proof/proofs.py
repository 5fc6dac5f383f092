"""Runs the library itself in the scratch schema; the failure of one proof becomes its finding."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.examination import failure
from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase
from dsql_outbox.cli.doctor.finding import Finding
from dsql_outbox.cli.logs import quiet
from dsql_outbox.outbox import Database, OutboxError

from .scratch_schema import scratch_schema
from .takeover import take_over
from .twenty_writes import twenty_writes

Proof = Callable[[Database, str], Finding]
"""Takes the database of the scratch schema, and its URL for other processes."""

PROOFS: Final[Mapping[str, Proof]] = {
    "20 writes": lambda database, _: twenty_writes(database),
    "take-over": take_over,
}
"""In the order in which they run and are shown."""


def proved(visit: ExaminedDatabase, address: str) -> Iterator[Finding]:
    """Run all proofs in the scratch schema, which is removed afterwards."""
    try:
        visit.begin_question()
        with quiet(), scratch_schema(visit, address) as database:
            for name, prove in PROOFS.items():
                yield _finding(name, prove, database, address)
    except (psycopg.Error, OutboxError) as error:
        yield failure("scratch schema", error)


def _finding(name: str, prove: Proof, database: Database, address: str) -> Finding:
    try:
        return prove(database, address)
    except (psycopg.Error, OutboxError) as error:
        return failure(name, error)
