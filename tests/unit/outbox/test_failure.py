"""What an error of the database means, and what each meaning leads to."""

import re
from importlib import resources
from uuid import uuid4

import msgspec
import psycopg
import pytest
from psycopg import errors

from dsql_outbox.outbox import InvalidEvent, OutcomeUnknown, SchemaError, is_retryable
from dsql_outbox.outbox.failure import (
    LASTING,
    OUTAGES,
    PASSING,
    RACES,
    RETRIED,
    TABLES,
    FailureKind,
    Moved,
    NotPrepared,
    classify,
    is_unreachable,
    kind_of,
)

OBSERVED = "change conflicts with another transaction, please retry: (OC000)"
SCHEMA_CHANGED = "schema has been updated by another transaction, please retry: (OC001)"
PATTERNS = [
    "OC000",
    "conflicts with another transaction",
    "mutation conflicts",
    "transaction conflict",
    "change conflicts",
]
REFUSALS = [
    'connection failed: FATAL:  password authentication failed for user "writer"',
    'connection failed: FATAL:  database "shop" does not exist',
    'connection failed: FATAL:  role "writer" does not exist',
    'FATAL:  no pg_hba.conf entry for host "10.0.0.1"',
    "FATAL:  unable to accept connection, access denied",
]


class WrapperError(Exception):
    """As SQLAlchemy's DBAPIError: the driver's error is in `orig`."""

    def __init__(self, text: str, orig: object) -> None:
        super().__init__(text)
        self.orig = orig


def server_error(sqlstate: str | None, text: str) -> psycopg.Error:
    """An error as psycopg makes it of a server's answer."""
    try:
        kind: type[psycopg.Error] = errors.lookup(sqlstate or "")
    except KeyError:  # what psycopg does for a code it does not know, such as OC000
        kind = psycopg.DatabaseError
    error = kind(text)
    error.sqlstate = sqlstate
    return error


def kind_sent(error: Exception) -> FailureKind:
    """What the error means if something to be committed was sent."""
    return classify(error, sent=True).kind


K = FailureKind
TAKEN = 'duplicate key value violates unique constraint "orders_pkey"'

TWO_ADDRESSES = """connection is bad: connection to server failed: Network is unreachable
Multiple connection attempts failed. All failures were:
- host: 'c', hostaddr: '10.0.0.1': FATAL:  Unable to accept connection, rate exceeded.
- host: 'c', hostaddr: '2001:db8::1': Network is unreachable"""

# SQLSTATE, text, the meaning for a statement that may run twice, and for a write that was sent.
MEANINGS = [
    ("40001", "could not serialize access", K.CONFLICT, K.CONFLICT),
    ("40001", OBSERVED, K.CONFLICT, K.CONFLICT),
    ("40001", SCHEMA_CHANGED, K.SCHEMA_CHANGED, K.SCHEMA_CHANGED),
    ("40P01", "deadlock detected", K.CONFLICT, K.CONFLICT),
    ("OC000", "please retry", K.CONFLICT, K.CONFLICT),
    ("OC001", "please retry", K.SCHEMA_CHANGED, K.SCHEMA_CHANGED),
    (None, OBSERVED, K.CONFLICT, K.CONFLICT),
    ("23505", "duplicate key", K.COLLISION, K.COLLISION),
    ("23505", TAKEN, K.KEY_TAKEN, K.KEY_TAKEN),
    ("42P06", "schema exists", K.EXISTS, K.EXISTS),
    ("42P07", "relation exists", K.EXISTS, K.EXISTS),
    ("42710", "type exists", K.EXISTS, K.EXISTS),
    ("08006", "connection failure", K.OUTAGE, K.IN_DOUBT),
    ("40003", "completion unknown", K.OUTAGE, K.IN_DOUBT),
    ("08000", "connection exception", K.OUTAGE, K.IN_DOUBT),
    ("08P01", "protocol violation", K.OUTAGE, K.IN_DOUBT),
    ("57P02", "crash shutdown", K.OUTAGE, K.IN_DOUBT),
    ("57P01", "terminating connection", K.OUTAGE, K.IN_DOUBT),
    ("57P03", "cannot connect now", K.OUTAGE, K.IN_DOUBT),
    ("57P05", "idle session timeout", K.OUTAGE, K.IN_DOUBT),
    (None, "server closed the connection unexpectedly", K.OUTAGE, K.IN_DOUBT),
    ("53000", "insufficient resources", K.OUTAGE, K.OUTAGE),
    ("53100", "disk full", K.OUTAGE, K.OUTAGE),
    ("53300", "too many clients", K.OUTAGE, K.OUTAGE),
    ("53400", "rate of connections exceeded", K.CROWDED, K.CROWDED),
    (None, "FATAL:  Unable to accept connection, rate exceeded.", K.CROWDED, K.IN_DOUBT),
    (None, TWO_ADDRESSES, K.CROWDED, K.IN_DOUBT),
    (None, "connection is bad: Network is unreachable", K.OUTAGE, K.IN_DOUBT),
    (None, "connection failed: SSL error: unexpected eof while reading", K.OUTAGE, K.IN_DOUBT),
    (None, "SSL SYSCALL error: EOF detected", K.OUTAGE, K.IN_DOUBT),
    (None, "connection timeout expired", K.OUTAGE, K.IN_DOUBT),
    ("53200", "out of memory", K.OUT_OF_MEMORY, K.OUT_OF_MEMORY),
    ("XX000", "server unavailable", K.BUSY, K.IN_DOUBT),
    ("XX000", "tuple concurrently updated", K.INTERNAL, K.IN_DOUBT),
    ("28P01", "password authentication failed", K.REFUSED, K.REFUSED),
    ("3D000", "no such database", K.REFUSED, K.REFUSED),
    ("57P04", "database dropped", K.REFUSED, K.REFUSED),
    (None, "password authentication failed", K.REFUSED, K.IN_DOUBT),
    ("57014", "statement timeout", K.INTERRUPTED, K.INTERRUPTED),
    ("55P03", "lock not available", K.INTERRUPTED, K.INTERRUPTED),
    ("58030", "could not read a file", K.INTERRUPTED, K.INTERRUPTED),
    ("25006", "in a read-only transaction", K.READ_ONLY, K.READ_ONLY),
    ("42P01", "relation does not exist", K.TABLES_MISSING, K.TABLES_MISSING),
    ("3F000", "schema does not exist", K.TABLES_MISSING, K.TABLES_MISSING),
    ("42703", "column does not exist", K.TABLES_OUTDATED, K.TABLES_OUTDATED),
    ("54000", "more than allowed temp space", K.OVER_LIMIT, K.OVER_LIMIT),
    ("42501", "permission denied", K.FORBIDDEN, K.FORBIDDEN),
    ("42601", "syntax error", K.FATAL, K.FATAL),
    ("23503", "violates foreign key constraint transaction conflict", K.FATAL, K.FATAL),
    ("23514", "violates check constraint oc000", K.FATAL, K.FATAL),
    ("0A000", "not supported", K.FATAL, K.FATAL),
    ("26000", "prepared statement does not exist", K.FATAL, K.FATAL),
]


@pytest.mark.parametrize(("sqlstate", "text", "meaning", "when_sent"), MEANINGS)
def test_a_sqlstate_or_a_text_has_one_meaning_also_under_a_wrapper(
    sqlstate: str | None, text: str, meaning: FailureKind, when_sent: FailureKind
) -> None:
    error = operational(sqlstate, text)
    wrapper = WrapperError("a statement failed", error)
    deep = WrapperError("a statement failed", raised_from(error))
    for each in (error, wrapper, raised_from(error), raised_from(wrapper), deep):
        assert kind_of(each) is meaning
        failure = classify(each, sent=True)
        assert (failure.kind, failure.sqlstate) == (when_sent, sqlstate)
        assert failure.error is each


def test_every_meaning_is_in_the_table_and_nothing_is_in_doubt_before_it_is_sent() -> None:
    ours = kind_of(NotPrepared("lost"))
    assert {ours, *(meaning for row in MEANINGS for meaning in row[2:])} == set(FailureKind)
    assert K.IN_DOUBT not in {row[2] for row in MEANINGS}


def operational(sqlstate: str | None, text: str) -> psycopg.Error:
    """As psycopg tells it: what has no SQLSTATE is an `OperationalError`."""
    return server_error(sqlstate, text) if sqlstate else psycopg.OperationalError(text)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_of_the_five_texts_is_a_conflict_in_any_letter_case(pattern: str) -> None:
    """Fact 11."""
    for text in (pattern, pattern.upper(), pattern.lower(), pattern.title(), pattern.swapcase()):
        error = psycopg.OperationalError(f"ERROR: {text} (key 1)")
        assert kind_of(error) is FailureKind.CONFLICT


@pytest.mark.parametrize("sqlstate", ["40001", "OC000", None])
def test_the_observed_message_is_a_conflict_whatever_the_drivers_sqlstate(
    sqlstate: str | None,
) -> None:
    """Fact 12."""
    failure = classify(server_error(sqlstate, OBSERVED), sent=True)
    assert failure.kind is FailureKind.CONFLICT
    assert failure.sqlstate == sqlstate
    assert failure.oc_class == "OC000"


@pytest.mark.parametrize("sqlstate", ["40001", "OC001", None])
def test_a_changed_schema_is_a_conflict_of_its_own_class(sqlstate: str | None) -> None:
    failure = classify(server_error(sqlstate, SCHEMA_CHANGED), sent=True)
    assert (failure.kind, failure.oc_class) == (FailureKind.SCHEMA_CHANGED, "OC001")


@pytest.mark.parametrize("sqlstate", ["OC000", "OC001"])
def test_the_class_of_a_conflict_may_be_in_the_sqlstate_alone(sqlstate: str) -> None:
    assert classify(server_error(sqlstate, "please retry"), sent=True).oc_class == sqlstate


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_plain_postgresql_conflicts_have_no_oc_class(sqlstate: str) -> None:
    failure = classify(server_error(sqlstate, "could not serialize access"), sent=True)
    assert (failure.kind, failure.oc_class) == (FailureKind.CONFLICT, None)


@pytest.mark.parametrize("text", ["could not serialize access", OBSERVED, ""])
def test_a_sqlstate_decides_in_any_language(text: str) -> None:
    """A server may speak German: konnte Zugriff nicht serialisieren."""
    translated = "konnte Zugriff nicht serialisieren wegen gleichzeitiger Aktualisierung"
    assert kind_sent(server_error("40001", translated)) is FailureKind.CONFLICT
    assert kind_sent(server_error("42501", text)) is FailureKind.FORBIDDEN


def raised_from(cause: Exception) -> Exception:
    error = RuntimeError("the unit of work failed")
    error.__cause__ = cause
    return error


def test_the_sqlstate_is_looked_for_under_a_driver_error_without_one() -> None:
    error = psycopg.OperationalError("the pipeline was aborted")
    error.__cause__ = server_error("40001", "could not serialize access")
    assert classify(error, sent=True).sqlstate == "40001"


def test_errors_that_cause_each_other_are_read_once() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert kind_of(one) is FailureKind.FATAL


def test_something_else_in_orig_is_not_taken_for_an_error() -> None:
    error = WrapperError("nothing is known", orig="40001")
    assert kind_of(error) is FailureKind.FATAL


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_unique_violation_is_no_conflict_whatever_its_text_holds(pattern: str) -> None:
    """Fact 14: an entity may be called ``oc000``."""
    text = f'duplicate key value violates unique constraint "entities_pkey" ({pattern})'
    assert kind_sent(server_error("23505", text)) is FailureKind.COLLISION


def test_a_duplicate_id_that_reads_like_a_conflict_is_none() -> None:
    """Fact 14."""
    text = "Key (id)=(0c000000-0c00-40c0-80c0-0c0000c00010) already exists."
    assert kind_sent(server_error("23505", text)) is FailureKind.COLLISION


OURS = [
    psycopg.DataError(f"cannot load: {OBSERVED}"),
    psycopg.ProgrammingError(f"no result: {OBSERVED}"),
    ValueError("not a version"),
    TypeError("not a string"),
    KeyError("write_id"),
    msgspec.ValidationError("expected `int`, got `str`"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
    ValueError(OBSERVED),
    RuntimeError("OC000"),
]


@pytest.mark.parametrize("error", OURS)
def test_what_was_raised_on_our_side_before_sending_is_fatal(error: Exception) -> None:
    """Fact 13: an event's own text must not decide."""
    assert kind_of(error) is FailureKind.FATAL


@pytest.mark.parametrize("error", OURS)
def test_what_was_raised_on_our_side_after_sending_leaves_the_outcome_in_doubt(
    error: Exception,
) -> None:
    """The answer may have been COMMIT: a defect in reading it proves nothing."""
    assert kind_sent(error) is FailureKind.IN_DOUBT


LOST = [
    psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"),
    psycopg.OperationalError("wait timeout expired"),
    psycopg.InterfaceError("the connection is closed"),
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(),
]


@pytest.mark.parametrize("error", LOST)
def test_a_connection_lost_after_sending_leaves_the_outcome_in_doubt(error: Exception) -> None:
    assert kind_sent(error) is FailureKind.IN_DOUBT


@pytest.mark.parametrize("error", LOST)
def test_a_connection_lost_before_sending_is_an_outage(error: Exception) -> None:
    assert kind_of(error) is FailureKind.OUTAGE


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refused_login_is_told_from_an_outage(text: str) -> None:
    assert kind_of(psycopg.OperationalError(text)) is FailureKind.REFUSED


@pytest.mark.parametrize("text", REFUSALS)
def test_no_text_makes_a_sent_write_certainly_not_stored(text: str) -> None:
    assert kind_sent(psycopg.OperationalError(text)) is FailureKind.IN_DOUBT


def test_missing_tables_are_not_waited_for() -> None:
    error = SchemaError("schema outbox lacks the outbox tables")
    error.__cause__ = server_error("42P01", "relation does not exist")
    assert kind_of(error) not in RETRIED | PASSING


def test_rows_that_moved_are_a_conflict() -> None:
    assert kind_of(Moved(OBSERVED)) is FailureKind.CONFLICT


def lost_at_the_commit() -> OutcomeUnknown:
    error = OutcomeUnknown(uuid4())
    error.__cause__ = psycopg.OperationalError("server closed the connection unexpectedly")
    return error


@pytest.mark.parametrize(
    ("error", "unreachable"),
    [
        (psycopg.OperationalError("connection refused"), True),
        (psycopg.OperationalError(REFUSALS[0]), True),
        (psycopg.InterfaceError("the connection is closed"), True),
        (lost_at_the_commit(), True),
        (InvalidEvent("", "connection refused"), False),
        (ValueError("connection refused"), False),
        *(
            (server_error(state, "server unavailable"), True)
            for state in ("08006", "53100", "53200", "53300", "53400", "57P01", "57P04", "XX000")
        ),
        (server_error("25006", "cannot execute INSERT in a read-only transaction"), True),
        *(
            (server_error(state, "a defect"), False)
            for state in ("40001", "23505", "42P01", "42501", "57014", "55P03", "XX000")
        ),
    ],
)
def test_a_database_out_of_reach_is_told_from_one_that_answers(
    error: Exception, unreachable: bool
) -> None:
    assert is_unreachable(error) is unreachable


@pytest.mark.parametrize(
    ("sqlstate", "retryable"),
    [
        *(
            (state, True)
            for state in ("40001", "40P01", "OC001", "53100", "53200", "53300", "53400")
        ),
        *(
            (state, False)
            for state in ("23505", "08006", "57P01", "XX000", "57014", "25006", "42P01")
        ),
        (None, False),
    ],
)
def test_only_what_is_certainly_not_committed_is_retryable(
    sqlstate: str | None, retryable: bool
) -> None:
    error = operational(sqlstate, "no")
    assert is_retryable(error) is retryable
    assert is_retryable(WrapperError("the statement failed", error)) is retryable


def test_a_long_runner_waits_for_what_passes() -> None:
    assert {K.CONFLICT, K.OUTAGE, K.REFUSED, K.INTERRUPTED, K.INTERNAL, K.BUSY} <= PASSING
    assert {K.READ_ONLY, K.OVER_LIMIT} <= PASSING
    assert PASSING.isdisjoint(LASTING | {K.FATAL})
    assert RETRIED.isdisjoint(LASTING | {K.FATAL, K.READ_ONLY, K.INTERRUPTED, K.OVER_LIMIT})
    assert {K.TABLES_MISSING, K.TABLES_OUTDATED, K.FORBIDDEN} == LASTING
    assert RACES.isdisjoint(OUTAGES)


@pytest.mark.parametrize("table", ["orders", "my_outbox", "outboxes"])
def test_the_key_of_a_table_of_the_caller_is_no_race(table: str) -> None:
    """Aurora DSQL may send no name of a table: then the text has the one of the key."""
    text = f'duplicate key value violates unique constraint "{table}_pkey"'
    assert kind_sent(server_error("23505", text)) is FailureKind.KEY_TAKEN
    for ours in TABLES:
        text = f'duplicate key value violates unique constraint "{ours}_pkey"'
        assert kind_sent(server_error("23505", text)) is FailureKind.COLLISION


def test_the_tables_whose_keys_are_raced_for_are_those_of_the_schema() -> None:
    made = re.compile(r"CREATE TABLE IF NOT EXISTS \{schema\}\.(\w+)")
    files = resources.files("dsql_outbox.schema").joinpath("migrations").iterdir()
    found = {name for file in files for name in made.findall(file.read_text())}
    assert found == TABLES
