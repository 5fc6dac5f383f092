"""Runs the library itself in the scratch schema; the failure of one proof becomes its finding."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase, failure
from dsql_outbox.cli.doctor.finding import Finding
from dsql_outbox.cli.logs import quiet
from dsql_outbox.outbox import Database, OutboxError
from dsql_outbox.outbox.failure import FailureKind, kind_of
from dsql_outbox.outbox.unit_of_work.budget import AT_ONCE
from dsql_outbox.schema import apply
from dsql_outbox.schema.migrator import remove

from .hot_storm import hot_storm
from .hour import hour
from .statements import query
from .takeover import take_over
from .twenty_writes import twenty_writes

SCRATCH: Final = "outbox_doctor"
"""A separate schema, because publishers of the examined schema must not relay its events."""


@contextmanager
def scratch_schema(visit: ExaminedDatabase, address: str) -> Generator[Database]:
    """Create outbox tables in the schema `SCRATCH`, and remove them after the block.

    Raises `OutboxError` if the schema exists already, and the driver's errors.
    """
    database = Database(address, schema=SCRATCH, isolation="repeatable read")
    create = query("schema_create", SCRATCH)
    try:
        AT_ONCE.run(lambda: visit.connection.execute(create))
    except psycopg.Error as error:
        if kind_of(error) is not FailureKind.EXISTS:
            raise
        raise OutboxError(_IN_USE) from error
    try:
        apply(database)
        yield database
    finally:
        remove(database)


_IN_USE: Final = (
    f"the schema {SCRATCH} exists: another doctor runs, or one was killed; "
    f"then run DROP SCHEMA {SCRATCH} CASCADE"
)


Proof = Callable[[Database, str], Finding]
"""Takes the database of the scratch schema, and its URL for other processes."""

PROOFS: Final[Mapping[str, Proof]] = {
    "20 writes": lambda database, _: twenty_writes(database),
    "hot storm": lambda database, _: hot_storm(database),
    "take-over": take_over,
}
"""In the order in which they run and are shown."""

HOUR: Final[Mapping[str, Proof]] = {"hour": lambda database, _: hour(database)}
"""Only on demand."""


def proved(visit: ExaminedDatabase, address: str, proofs: Mapping[str, Proof]) -> Iterator[Finding]:
    """Run proofs in the scratch schema, which is removed afterwards."""
    try:
        visit.begin_question()
        with quiet(), scratch_schema(visit, address) as database:
            for name, prove in proofs.items():
                yield _finding(name, prove, database, address)
    except (psycopg.Error, OutboxError) as error:
        yield failure("scratch schema", error)


def _finding(name: str, prove: Proof, database: Database, address: str) -> Finding:
    try:
        return prove(database, address)
    except (psycopg.Error, OutboxError) as error:
        return failure(name, error)
