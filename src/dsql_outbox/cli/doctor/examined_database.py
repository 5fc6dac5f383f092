"""The database under examination: its connection, its scratch table, and the questions to it."""

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import count
from time import monotonic
from typing import Any, Final, NamedTuple, Self

import psycopg
from psycopg.rows import class_row

from dsql_outbox.cli.database_options import told_in_full
from dsql_outbox.cli.tool_call import called
from dsql_outbox.operations.status import Status, StatusReader
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import OutboxError, SchemaError
from dsql_outbox.outbox.failure import FailureKind, is_unreachable, kind_of
from dsql_outbox.outbox.redaction import error_line
from dsql_outbox.outbox.unit_of_work.budget import DOCTOR
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.drift import Drift
from dsql_outbox.schema.missing_tables import MissingTables, find_missing
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.roles import is_dsql

from .finding import Finding, Verdict, refused

PATIENCE: Final = 15.0
"""Seconds that one check may take before the doctor continues with the next."""


_FULL: Final = re.compile("no space left on device|disk full", re.IGNORECASE)
"""The text of a full disk. libpq gives no SQLSTATE for a connection that was not opened."""


class Server(NamedTuple):
    """The row of ``doctor_server``. `isolation` is that of a single statement."""

    version: str
    number: int
    isolation: str
    user: str


class ExaminedDatabase:
    """A connection to the examined database, as a context manager.

    Creating it raises the driver's `OperationalError` if the database cannot be
    reached.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.schema = database.schema
        self.connection = self._given_time(database.connect())  # a cluster may have to wake up
        self._positions = count(1)

    def connect(self) -> Connection:
        """Open one more connection, which may be used for `PATIENCE` seconds."""
        return self._given_time(self.database.connect(timeout=PATIENCE))

    def _given_time(self, connection: Connection) -> Connection:
        connection.deadline = monotonic() + PATIENCE
        return connection

    def new_position(self) -> int:
        """A key of the scratch table that no probe has used."""
        return next(self._positions)

    def begin_question(self) -> None:
        """Start the time of the next check, with a new connection if the last check lost it."""
        if self.connection.closed:
            self.connection = self.connect()
        self.connection.rollback()
        self.connection.deadline = monotonic() + PATIENCE

    def rows(
        self, name: str, parameters: Mapping[str, object] | None = None, **literals: int | str
    ) -> Sequence[Sequence[Any]]:
        """Run a named statement and return its rows. Raises the driver's errors."""
        return run(self.connection, self.schema, name, parameters, **literals)

    @property
    def server(self) -> Server:
        """What the server says of itself."""
        cursor = self.connection.cursor(row_factory=class_row(Server))
        (found,) = cursor.execute(_query(self.schema, "doctor_server")).fetchall()
        return found

    @cached_property
    def is_dsql(self) -> bool:
        """Whether this is Aurora DSQL: only there does ``sys.jobs`` exist."""
        return is_dsql(self.connection)

    @cached_property
    def drifts(self) -> Sequence[Drift]:
        """The differences that `schema check` reports."""
        return check(self.database)

    @cached_property
    def missing(self) -> MissingTables | None:
        """What the lack of tables means, if any is missing."""
        return find_missing(self.connection, self.database)

    @property
    def only_consumes(self) -> bool:
        """Whether the tables are those of the inbox alone, so that nothing is relayed from here."""
        return self.missing is not None and self.missing.inbox_alone

    @cached_property
    def status(self) -> Status:
        """The state of the outbox, as `status` reads it."""
        try:
            return called(StatusReader(self.database), StatusReader.read)
        except SchemaError as error:
            raise told_in_full(self.database, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


def run(
    connection: Connection,
    schema: str,
    name: str,
    parameters: Mapping[str, object] | None = None,
    /,
    **literals: int | str,
) -> Sequence[Sequence[Any]]:
    """Run a named statement on `connection` and return its rows. Raises the driver's errors."""
    cursor = connection.execute(_query(schema, name, **literals), parameters)
    return cursor.fetchall() if cursor.description else []


def _query(schema: str, name: str, **literals: int | str) -> bytes:
    return bare(statement(name, schema, **literals))


def bare(query: bytes) -> bytes:
    """Return a statement without its comments, because emulators decide by the first word."""
    return re.sub(rb"^--.*\n", b"", query, flags=re.MULTILINE)


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
    text = f"{error.sqlstate}: {error_line(error)}" if error.sqlstate else error_line(error)
    return refused(name, verdict, text, error, remedy)


def unopened(error: psycopg.OperationalError) -> Finding:
    """The finding for a database that no connection can be opened to."""
    text = error_line(error)
    if _FULL.search(text):
        remedy = (
            "make room on the disk of the server: until then nothing is stored, and a publisher "
            "that is connected sends only what was stored before"
        )
    elif kind_of(error) is FailureKind.REFUSED:
        remedy = "check the role, its password and the name of the database in the URL"
    else:
        remedy = "check the host and the port of the URL, and that the server runs there"
    return refused("server", "fail", text, error, remedy)


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


@contextmanager
def scratch(visit: ExaminedDatabase) -> Generator[None]:
    """Create a table ``doctor_scratch`` in the outbox schema, and drop it after the block.

    Raises `OutboxError` if the table exists already, and the driver's errors.
    """
    visit.begin_question()
    try:
        _change(visit.connection, visit.schema, "doctor_scratch_create")
    except psycopg.errors.DuplicateTable as error:
        raise OutboxError(_in_use(visit.schema)) from error  # it is the table of another doctor
    except BaseException:  # perhaps it was created
        _drop(visit)
        raise
    try:
        yield
    finally:
        _drop(visit)


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
