"""The meaning of a database error. No other module decides it. No I/O.

The SQLSTATE decides. The text decides only if there is no SQLSTATE, because the text may
quote the id of an event, which may contain ``oc000``. The sources are Appendix A of the
PostgreSQL manual for the error codes, and pages of Aurora DSQL. "Concurrency control" has
40001 with OC000 or OC001 in the text, "Quotas" the text of 53400.

The error may be one of psycopg, asyncpg or psycopg2, also inside a wrapper of SQLAlchemy or
Django. The library imports psycopg alone, so it recognises the others by the module of their
class.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Final, NamedTuple

import psycopg
from psycopg import errors

from .errors import OutboxError, SchemaError
from .redaction import error_line


class FailureKind(Enum):
    """The meaning of an error. Except for `IN_DOUBT`, nothing was committed."""

    CONFLICT = "conflict"
    """Another transaction changed the same rows first."""
    SCHEMA_CHANGED = "schema changed"
    """A conflict with a change of a table (OC001). Each session of Aurora DSQL gets it once."""
    COLLISION = "collision"
    """A key of our tables exists: the id of the event, or a row of a concurrent first insert."""
    KEY_TAKEN = "key taken"
    """A unique key of a table of the caller exists. That is no race, and a retry would fail."""
    EXISTS = "exists"
    """The schema, table or type to be created exists: another session created it."""
    OUTAGE = "outage"
    """The database cannot be reached, or is full."""
    CROWDED = "crowded"
    """Too many connections are being opened. A retry after a short wait would add to them."""
    OUT_OF_MEMORY = "out of memory"
    """The server has no memory for this statement now."""
    BUSY = "busy"
    """Aurora DSQL answers "server unavailable" under heavy load. The connection is usable."""
    INTERNAL = "internal"
    """The server reports its own defect, or two concurrent changes of its catalog."""
    IN_DOUBT = "in doubt"
    """A statement was sent and no answer says whether it was committed."""
    REFUSED = "refused"
    """The server refuses the login, or the database does not exist."""
    INTERRUPTED = "interrupted"
    """The server ended the statement because of a timeout, a limit, an operator or its disk."""
    READ_ONLY = "read-only"
    """The server accepts no writes: a standby, or a former primary after a failover."""
    OVER_LIMIT = "over a limit"
    """The statement, or its transaction, is too large for the server. A smaller one may pass."""
    FORBIDDEN = "forbidden"
    """The role lacks a right."""
    TABLES_MISSING = "tables missing"
    """A table or its schema does not exist."""
    TABLES_OUTDATED = "tables outdated"
    """A column does not exist."""
    NOT_PREPARED = "not prepared"
    """The session has lost a prepared statement, and so the transaction has failed."""
    FATAL = "fatal"
    """Any other error. A retry would fail in the same way."""


class DatabaseFailure(NamedTuple):
    """A classified exception. `oc_class` is ``OC000``, ``OC001``, or None.

    `sent` is whether a write may have reached the server. `for_caller` is the exception
    that the caller gets, if it is another one: its function may have wrapped the driver's.
    """

    kind: FailureKind
    error: Exception
    sqlstate: str | None
    oc_class: str | None
    sent: bool = False
    for_caller: Exception | None = None

    @property
    def last_word(self) -> Exception:
        """The exception for the caller if no other attempt follows."""
        return self.for_caller or self.error

    @property
    def text(self) -> str:
        """The text of a conflict or of a lost server, for a log line.

        Of any other error it is the name of its type, because the text may quote an event.
        """
        found = driver_error(self.error)
        is_safe = found is not None and _is_operational(found)
        return error_line(found) if found and is_safe else type(self.error).__name__


class Moved(Exception):
    """A conflict that the operator's transaction found: rows that it read were deleted since."""


class NotPrepared(errors.InvalidSqlStatementName):
    """A statement of the library in a transaction, whose prepared form the session has lost.

    Nothing is wrong with the transaction, and another try gets the text of the statement.
    """


_K = FailureKind

CONFLICTS: Final = frozenset({_K.CONFLICT, _K.SCHEMA_CHANGED})

RACES: Final = CONFLICTS | {_K.COLLISION}
"""Another session was faster. A write is retried soon, a few times."""

OUTAGES: Final = frozenset(
    {_K.OUTAGE, _K.CROWDED, _K.OUT_OF_MEMORY, _K.BUSY, _K.INTERNAL, _K.IN_DOUBT}
)
"""The database cannot answer now. A write is retried for a while."""

RETRIED: Final = RACES | OUTAGES
"""The errors after which a write is retried."""

SERVER_TROUBLE: Final = frozenset({_K.BUSY, _K.INTERNAL})
"""The server failed, and the connection is usable."""

PASSING: Final = CONFLICTS | OUTAGES | {_K.REFUSED, _K.INTERRUPTED, _K.READ_ONLY, _K.OVER_LIMIT}
"""The errors whose end a program waits for, although it does not know whose statement failed."""

LASTING: Final = frozenset({_K.TABLES_MISSING, _K.TABLES_OUTDATED, _K.FORBIDDEN})
"""The errors that end a publisher: they last until somebody changes the schema or a right.

Any other error of one of its own statements may be one of this server or connection alone.
"""

_UNREACHABLE: Final = frozenset(
    {_K.OUTAGE, _K.CROWDED, _K.OUT_OF_MEMORY, _K.BUSY, _K.REFUSED, _K.READ_ONLY}
)
_NOT_COMMITTED: Final = CONFLICTS | {_K.OUTAGE, _K.CROWDED, _K.OUT_OF_MEMORY}

NO_SUCH_FORM: Final = (errors.FeatureNotSupported, errors.SyntaxError, errors.DatatypeMismatch)
"""The errors of psycopg by which a database refuses data-modifying CTEs; see `refuses_form`."""

_DRIVERS: Final = frozenset({"psycopg", "asyncpg", "psycopg2"})
_ADAPTER: Final = "sqlalchemy.dialects.postgresql.asyncpg"
"""The module of SQLAlchemy's copies of asyncpg's errors. Each has the original as its cause."""

_OWN_SIDE: Final = frozenset({"DataError", "ProgrammingError"})
"""The errors that psycopg and psycopg2 raise themselves, for a wrong value or a wrong call."""
_CLOSED_TEXT: Final = "connection is closed"
"""The text of asyncpg's `InterfaceError` after a loss. With another text it is a wrong call."""
_INTERNAL: Final = "InternalClientError"
"""asyncpg's error for a connection that it cannot go on with, as after a FATAL of the server."""
_OLD_TYPES: Final = "OutdatedSchemaCacheError"
"""A subclass of that: the connection is usable."""

_NO_CONNECTION_FREE: Final = frozenset(
    {
        ("sqlalchemy.exc", "TimeoutError"),
        ("psycopg_pool", "PoolTimeout"),
        ("psycopg_pool", "TooManyRequests"),
    }
)
"""The errors of a pool that has lent all of its connections. Nothing was sent."""

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
    _K.OVER_LIMIT: ("54000",),
    _K.FORBIDDEN: ("42501",),
    _K.TABLES_MISSING: ("42P01", "3F000"),
    _K.TABLES_OUTDATED: ("42703",),
}
_KINDS: Final = {state: kind for kind, states in _STATES.items() for state in states}

TABLES: Final = frozenset(
    {
        "business_events",
        "dead_letters",
        "entities",
        "event_headers",
        "inbox",
        "inbox_subjects",
        "outbox",
        "outbox_erasures",
        "outbox_failures",
        "outbox_fills",
        "outbox_jobs",
        "outbox_leases",
        "outbox_operations",
        "outbox_publishers",
        "outbox_replays",
        "outbox_targets",
        "outbox_topics",
        "schema_migrations",
    }
)
"""The tables of the outbox. Only their unique keys, and those of the catalog, can be raced for."""

_SCHEMAS: Final[set[str]] = set()
"""The schemas of the outbox that this process uses: a table of the caller may have our name."""

_KEY: Final = re.compile('duplicate key value violates unique constraint "(?P<key>[^"]+)"')
"""The text of 23505, for a server that sends no name of a table, as Aurora DSQL may."""

_CONFLICT_TEXT: Final = re.compile(
    "oc00[01]|conflicts with another transaction|mutation conflicts|transaction conflict"
    "|change conflicts|schema has been updated by another transaction",
    re.IGNORECASE,
)
_OC_CLASS: Final = re.compile("OC00[01]", re.IGNORECASE)
_REFUSING_STATES: Final = frozenset(kind.sqlstate for kind in NO_SUCH_FORM)
_OUTDATED_PLAN: Final = re.compile("cached (statement )?plan")
_BUSY_TEXT: Final = "server unavailable"
_CROWDED_TEXT: Final = re.compile("unable to accept connection, rate exceeded", re.IGNORECASE)
"""The text of 53400. libpq gives no SQLSTATE for a connection that was not opened."""
_WAKING_TEXT: Final = "unable to accept connection, waking up cluster"
"""The text of an idle cluster. Its SQLSTATE is not documented."""
_LOGIN_TEXT: Final = "password authentication failed"
_ACCESS_CHECK: Final = "aclcheck_error"
"""The function of PostgreSQL that refuses access to an object, whatever the language of its text.
Another server may name none, and is known by the English text."""
_ACCESS_TEXT: Final = "permission denied for "
_REFUSED_TEXT: Final = re.compile(
    "authentication failed|does not exist|pg_hba.conf|access denied", re.IGNORECASE
)

_SCHEMA_DEFECTS: Final = {
    _K.TABLES_MISSING: "lacks the outbox tables",
    _K.TABLES_OUTDATED: "is older than this version",
}
_APPLY: Final = "`dsql-outbox schema apply`"


def add_schema(name: str) -> None:
    """Remember a schema as one of the outbox."""
    _SCHEMAS.add(name)


def classify(error: Exception, *, sent: bool) -> DatabaseFailure:
    """Classify an exception. `sent` is True if a write may have reached the server.

    Only a write that was sent can be in doubt.
    """
    if isinstance(error, Moved):
        return DatabaseFailure(_K.CONFLICT, error, None, None)
    found = driver_error(error)
    sqlstate = _state_of(found)
    # The text of a wrapper is left out, since SQLAlchemy quotes the parameters in it.
    text = " ".join(str(e) for e in unwrap(error) if _is_of_driver(e) or isinstance(e, OSError))
    if found and sqlstate:
        kind = _kind_of_state(found, sqlstate, text, sent=sent)
    else:
        kind = _kind_of_text(found, error, text, sent=sent)
    oc_class = _oc_class(f"{sqlstate} {text}") if kind is _K.CONFLICT else None
    if oc_class == "OC001":
        kind = _K.SCHEMA_CHANGED
    return DatabaseFailure(kind, error, sqlstate, oc_class, sent)


def kind_of(error: Exception) -> FailureKind:
    """Return the meaning of the error of a statement that may run twice. Never `IN_DOUBT`."""
    return classify(error, sent=False).kind


def accepts_no_writes() -> psycopg.Error:
    """Return the error for a server that says at the login that it accepts no writes."""
    return errors.ReadOnlySqlTransaction("the server accepts no writes")


def text_of(error: Exception) -> str:
    """Return the text of an error for a log line; see `DatabaseFailure.text`."""
    return classify(error, sent=False).text


def shown_error(error: Exception) -> str:
    """Return what a log line may tell of any error: its text if it is ours, else `text_of`."""
    return error_line(error) if isinstance(error, OutboxError) else text_of(error)


def is_retryable(error: Exception) -> bool:
    """Return whether a transaction was certainly not committed and a retry makes sense.

    The error is one of psycopg, asyncpg or psycopg2, or a wrapper of SQLAlchemy or Django
    around it. True for a conflict, and for a server or a pool of connections that is full.
    False for a lost connection: if it was lost at COMMIT, the transaction may be committed.
    False for a unique violation.

        >>> import psycopg
        >>> is_retryable(psycopg.errors.SerializationFailure())
        True
        >>> is_retryable(psycopg.errors.UniqueViolation())
        False
    """
    return classify(error, sent=True).kind in _NOT_COMMITTED


def is_waking(error: Exception) -> bool:
    """Return whether Aurora DSQL opens no connection because its idle cluster is waking up."""
    return isinstance(error, psycopg.OperationalError) and _WAKING_TEXT in str(error)


def is_wrong_password(error: Exception) -> bool:
    """Return whether the server refuses a login because of its password."""
    return isinstance(error, psycopg.OperationalError) and _LOGIN_TEXT in str(error)


def refuses_form(error: BaseException) -> bool:
    """Return whether the error of a real write may be a refusal of data-modifying CTEs.

    A statement may be prepared, as asyncpg does it.
    """
    return _state_of(driver_error(error)) in _REFUSING_STATES and not is_outdated_plan(error)


def is_outdated_plan(error: BaseException) -> bool:
    """Return whether a prepared statement is older than the tables. That is a 0A000, too."""
    return _OUTDATED_PLAN.search(str(driver_error(error))) is not None


def lacks_feature(error: BaseException) -> bool:
    """Return whether the server does not know what a statement asks for."""
    return sqlstate_of(error) == errors.FeatureNotSupported.sqlstate


def answers_commit(error: Exception) -> bool:
    """Return whether an error that means a lost connection is an answer to COMMIT: it failed.

    A deferred trigger of the caller may raise such an error, or another server that it asks. If
    ours were lost, the error would be of severity FATAL, or the driver's own. 08007 says itself
    that nobody knows.
    """
    found = driver_error(error)
    sqlstate = _state_of(found) or ""
    if found is None or not sqlstate.startswith("08") or sqlstate == "08007":
        return False
    return "ERROR" in {_field(found, "severity_nonlocalized"), _field(found, "severity_en")}


def is_unreachable(error: Exception) -> bool:
    """Return whether the database cannot be reached or accepts no writes, for now or at all."""
    return kind_of(error) in _UNREACHABLE


def schema_defect(error: Exception, command: str = _APPLY) -> str | None:
    """Return the defect of the schema as the end of a sentence, or None for another error.

    It names the command that mends it.

    An error inside a wrapper is ignored, because it may concern tables of the caller: for a
    statement of the library, give the `driver_error`.
    """
    kind = _KINDS.get(_state_of(error) or "") if _is_of_driver(error) else None
    defect = _SCHEMA_DEFECTS.get(kind) if kind else None
    return f"{defect}: run {command}" if defect else None


def schema_error(error: Exception, schema: str, command: str = _APPLY) -> SchemaError | None:
    """Return a `SchemaError` if the error is about a missing table or column of the outbox."""
    defect = schema_defect(error, command)
    if defect is None:
        return None
    named = SchemaError(f"schema {schema} {defect}")
    named.__cause__ = error
    return named


def refuses_access(error: Exception) -> bool:
    """Return whether a driver's own error says that the role lacks a right on an object.

    The SQLSTATE alone does not say it: a trigger or a policy may refuse a row by the same one.
    """
    if not _is_of_driver(error) or _KINDS.get(_state_of(error) or "") is not _K.FORBIDDEN:
        return False
    source = {_field(error, "source_function"), _field(error, "server_source_function")}
    return _ACCESS_CHECK in source or str(error).startswith(_ACCESS_TEXT)


@contextmanager
def tables_expected(schema: str) -> Generator[None]:
    """Raise `SchemaError` if a statement of the block misses a table or column."""
    try:
        yield
    except psycopg.Error as error:
        named = schema_error(error, schema)
        if named is None:
            raise
        raise named from error


def unwrap(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and the errors inside it, such as SQLAlchemy's ``orig`` or the cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        inner = getattr(error, "orig", None)
        error = inner if isinstance(inner, BaseException) else error.__cause__


def driver_error(error: BaseException) -> Exception | None:
    """Return the error of a driver, also inside a wrapper. Prefer one with a SQLSTATE."""
    found = [e for e in unwrap(error) if isinstance(e, Exception) and _is_of_driver(e)]
    return next((e for e in found if _state_of(e)), found[0] if found else None)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of the error of any driver, also inside a wrapper."""
    return _state_of(driver_error(error))


def _is_of_driver(error: BaseException) -> bool:
    """Return whether an error is a driver's own, or a copy of SQLAlchemy that lost its cause."""
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return not modules.isdisjoint(_DRIVERS) or (_is_copy(error) and error.__cause__ is None)


def _is_copy(error: BaseException) -> bool:
    return type(error).__module__ == _ADAPTER


def _state_of(found: BaseException | None) -> str | None:
    """Return the SQLSTATE of a driver's own error. psycopg2 calls it `pgcode`."""
    return getattr(found, "sqlstate", None) or getattr(found, "pgcode", None)


def _field(found: BaseException, name: str) -> str | None:
    """Return a field of the server's message. asyncpg has it at the error itself."""
    value: str | None = getattr(getattr(found, "diag", found), name, None)
    return value


def _is_operational(found: Exception) -> bool:
    """Return whether psycopg calls it, or would call it, an `OperationalError`."""
    sqlstate = _state_of(found)
    if sqlstate is None:
        return _is_of_connection(found)
    return issubclass(errors.get_base_exception(sqlstate), psycopg.OperationalError)


def _is_of_connection(found: Exception) -> bool:
    """Return whether a driver's error without a SQLSTATE is about the connection."""
    names = {kind.__name__ for kind in type(found).__mro__}
    if _is_copy(found) or type(found).__module__.partition(".")[0] == "asyncpg":
        return _CLOSED_TEXT in str(found) or (_INTERNAL in names and _OLD_TYPES not in names)
    return names.isdisjoint(_OWN_SIDE)


def _kind_of_state(found: Exception, sqlstate: str, text: str, *, sent: bool) -> FailureKind:
    if isinstance(found, NotPrepared):
        return _K.NOT_PREPARED
    kind = _K.IN_DOUBT if sqlstate.startswith("08") else _KINDS.get(sqlstate)
    if kind is None:
        return _K.INTERRUPTED if _is_operational(found) else _K.FATAL
    if kind is _K.COLLISION and not _is_our_key(found):
        return _K.KEY_TAKEN
    if kind is _K.INTERNAL and not sent:
        return _K.BUSY if _BUSY_TEXT in text else _K.INTERNAL
    if kind in {_K.INTERNAL, _K.IN_DOUBT}:
        return _K.IN_DOUBT if sent else _K.OUTAGE
    return kind


def _is_our_key(found: Exception) -> bool:
    """Return whether a unique key is not one of the caller's tables, as far as the server says."""
    if table := _field(found, "table_name"):
        schema = _field(found, "schema_name")
        return (table in TABLES and schema in _SCHEMAS) or schema == "pg_catalog"
    key = _KEY.search(str(found))
    return key is None or key["key"].removesuffix("_pkey") in TABLES


def _kind_of_text(
    found: Exception | None, error: Exception, text: str, *, sent: bool
) -> FailureKind:
    if any(map(_has_no_connection_free, unwrap(error))):
        return _K.OUTAGE
    is_of_connection = _is_of_connection(found) if found else isinstance(error, OSError)
    # Raised on our side, by a defect or by the driver itself: the text proves nothing.
    if not is_of_connection and not any(map(_is_invalidated, unwrap(error))):
        return _K.IN_DOUBT if sent else _K.FATAL
    if found and _CONFLICT_TEXT.search(text):
        return _K.CONFLICT
    return _K.IN_DOUBT if sent else _kind_of_no_connection(text)


def _is_invalidated(error: BaseException) -> bool:
    """Return whether SQLAlchemy has found that the connection was lost."""
    return getattr(error, "connection_invalidated", False) is True


def _has_no_connection_free(error: BaseException) -> bool:
    return (type(error).__module__, type(error).__name__) in _NO_CONNECTION_FREE


def _kind_of_no_connection(text: str) -> FailureKind:
    if _CROWDED_TEXT.search(text):
        return _K.CROWDED
    return _K.REFUSED if _REFUSED_TEXT.search(text) else _K.OUTAGE


def _oc_class(text: str) -> str | None:
    found = _OC_CLASS.search(text)
    return found.group().upper() if found else None
