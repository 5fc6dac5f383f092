"""The table that the probes write to; it is dropped in any case."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import psycopg

from dsql_outbox.outbox import DOCTOR, Connection, OutboxError
from dsql_outbox.schema import statement

from .examined_database import ExaminedDatabase, run


@contextmanager
def scratch(visit: ExaminedDatabase) -> Generator[None]:
    """Create a table ``doctor_scratch`` in the outbox schema, and drop it after the block.

    Raises `OutboxError` if the table exists already, and the driver's errors.
    """
    visit.begin_question()
    try:
        try:
            _change(visit.connection, visit.schema, "doctor_scratch_create")
        except psycopg.errors.DuplicateTable as error:
            raise _InUse(_in_use(visit.schema)) from error
        yield
    except _InUse:
        raise  # do not drop the table of another doctor
    except BaseException:
        _drop(visit)
        raise
    _drop(visit)


class _InUse(OutboxError):
    """The scratch table belongs to another doctor."""


def _drop(visit: ExaminedDatabase) -> None:
    # Use a new connection: an interrupted one is closed, a failed one is in a transaction.
    visit.connection.close()
    with visit.connect() as connection:
        _change(connection, visit.schema, "doctor_scratch_drop")


def _change(connection: Connection, schema: str, name: str) -> None:
    """Run a schema change, and again after a conflict.

    On Aurora DSQL it fails once with OC001 if another session changed the schema.
    """
    DOCTOR.run(partial(run, connection, schema, name))


def _in_use(schema: str) -> str:
    drop = " ".join(statement("doctor_scratch_drop", schema).decode().splitlines()[1:])
    return f"the scratch table exists: another doctor runs, or one was killed; then run {drop}"
