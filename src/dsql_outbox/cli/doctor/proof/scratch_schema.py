"""The schema with the outbox tables of the proofs. It is removed in any case."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase
from dsql_outbox.outbox import AT_ONCE, Database, FailureKind, OutboxError, kind_of
from dsql_outbox.schema import apply, remove, statement

SCRATCH: Final = "outbox_doctor"
"""A separate schema, because publishers of the examined schema must not relay its events."""


@contextmanager
def scratch_schema(visit: ExaminedDatabase, address: str) -> Generator[Database]:
    """Create outbox tables in the schema `SCRATCH`, and remove them after the block.

    Raises `OutboxError` if the schema exists already, and the driver's errors.
    """
    database = Database(address, schema=SCRATCH, isolation="repeatable read")
    create = statement("doctor_schema_create", SCRATCH)
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
