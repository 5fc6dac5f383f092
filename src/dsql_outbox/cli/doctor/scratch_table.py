"""The table that the probes write to, taken away whatever happens."""

import signal
from collections.abc import Generator
from contextlib import contextmanager

import psycopg

from dsql_outbox.outbox import Connection, OutboxError
from dsql_outbox.schema import statement

from .examined_database import Visit, run


@contextmanager
def scratch(visit: Visit) -> Generator[None]:
    """A table ``doctor_scratch`` in our schema, for as long as the block runs.

    SIGTERM ends the block as Ctrl-C does. Raises `OutboxError` when the table is
    there already, and the driver's errors.
    """
    visit.begin_question()
    try:
        with _terminated_as_interrupted():
            try:
                _change(visit.connection, visit.schema, "doctor_scratch_create")
            except psycopg.errors.DuplicateTable as error:
                raise _InUse(_in_use(visit.schema)) from error
            yield
    except _InUse:
        raise  # it is another doctor's
    except BaseException:
        _drop(visit)
        raise
    _drop(visit)


class _InUse(OutboxError):  # noqa: N818 - reads as what happened
    """The scratch table belongs to another doctor."""


def _drop(visit: Visit) -> None:
    # On a connection of its own: an interrupted one is closed, a failed one has a transaction.
    visit.connection.close()
    with visit.connect() as connection:
        _change(connection, visit.schema, "doctor_scratch_drop")


def _change(connection: Connection, schema: str, name: str) -> None:
    """Change the schema, again if somebody else just did: Aurora DSQL says so once (OC001)."""
    try:
        run(connection, schema, name)
    except psycopg.errors.SerializationFailure:
        run(connection, schema, name)


def _in_use(schema: str) -> str:
    drop = " ".join(statement("doctor_scratch_drop", schema).decode().splitlines()[1:])
    return f"the scratch table is there: another doctor is at work, or one was killed: run {drop}"


@contextmanager
def _terminated_as_interrupted() -> Generator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
