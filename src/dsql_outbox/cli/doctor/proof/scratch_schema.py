"""The schema whose outbox tables the proofs use; it is removed whatever happens."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import psycopg

from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase
from dsql_outbox.cli.signals import ended_as_interrupted
from dsql_outbox.outbox import AT_ONCE, Database, OutboxError
from dsql_outbox.schema import apply, remove, statement

SCRATCH: Final = "outbox_doctor"
"""A schema of its own: publishers of the examined schema must not relay what is written here."""


@contextmanager
def scratch_schema(visit: ExaminedDatabase, address: str) -> Generator[Database]:
    """Create outbox tables in the schema `SCRATCH`, and remove them after the block.

    SIGTERM and SIGHUP end the block as Ctrl-C does. Raises `OutboxError` if the schema exists
    already, and the driver's errors.
    """
    database = Database(address, schema=SCRATCH, isolation="repeatable read")
    create = statement("doctor_schema_create", SCRATCH)
    with ended_as_interrupted():
        try:
            AT_ONCE.run(lambda: visit.connection.execute(create))
        except psycopg.errors.DuplicateSchema as error:
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
