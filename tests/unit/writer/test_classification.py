"""What a failure means: may the write be retried, and is its outcome known."""

from collections.abc import Callable

import msgspec
import psycopg
import pytest
from psycopg import errors

from dsql_outbox.outbox import SchemaError
from dsql_outbox.writer.attempt.classification import FailureKind, classify

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


def kind_of(error: Exception, *, sent: bool = True) -> FailureKind:
    return classify(error, sent=sent).kind


@pytest.mark.parametrize("change", [str, str.upper, str.lower, str.title, str.swapcase])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_of_the_five_texts_is_a_conflict_in_any_letter_case(
    pattern: str, change: Callable[[str], str]
) -> None:
    """Fact 11."""
    error = psycopg.OperationalError(f"ERROR: {change(pattern)} (key 1)")
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
    assert (failure.kind, failure.oc_class) == (FailureKind.CONFLICT, "OC001")


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
    assert kind_of(server_error("40001", translated)) is FailureKind.CONFLICT
    assert kind_of(server_error("42501", text)) is FailureKind.FATAL


def raised_from(cause: Exception) -> Exception:
    error = RuntimeError("the unit of work failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "wrap",
    [
        raised_from,
        lambda error: WrapperError("the statement failed", error),
        lambda error: raised_from(WrapperError("the statement failed", error)),
        lambda error: WrapperError("the statement failed", raised_from(error)),
    ],
)
@pytest.mark.parametrize(
    ("sqlstate", "text", "kind"),
    [
        ("40001", "could not serialize access", FailureKind.CONFLICT),
        (None, OBSERVED, FailureKind.CONFLICT),
        ("23505", f"duplicate key: {OBSERVED}", FailureKind.COLLISION),
        ("42601", "syntax error", FailureKind.FATAL),
        ("57P01", "terminating connection", FailureKind.IN_DOUBT),
    ],
)
def test_a_wrapped_error_means_what_the_drivers_error_means(
    wrap: Callable[[Exception], Exception], sqlstate: str | None, text: str, kind: FailureKind
) -> None:
    """Fact 12."""
    wrapped = wrap(server_error(sqlstate, text))
    failure = classify(wrapped, sent=True)
    assert (failure.kind, failure.sqlstate) == (kind, sqlstate)
    assert failure.error is wrapped


def test_the_sqlstate_is_looked_for_under_a_driver_error_without_one() -> None:
    error = psycopg.OperationalError("the pipeline was aborted")
    error.__cause__ = server_error("40001", "could not serialize access")
    assert classify(error, sent=True).sqlstate == "40001"


def test_errors_that_cause_each_other_are_read_once() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert kind_of(one, sent=False) is FailureKind.FATAL


def test_something_else_in_orig_is_not_taken_for_an_error() -> None:
    error = WrapperError("nothing is known", orig="40001")
    assert kind_of(error, sent=False) is FailureKind.FATAL


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_unique_violation_is_no_conflict_whatever_its_text_holds(pattern: str) -> None:
    """Fact 14: an entity may be called ``oc000``."""
    text = f'duplicate key value violates unique constraint "entities_pkey" ({pattern})'
    assert kind_of(server_error("23505", text)) is FailureKind.COLLISION


def test_a_duplicate_id_that_reads_like_a_conflict_is_none() -> None:
    """Fact 14."""
    text = "Key (id)=(0c000000-0c00-40c0-80c0-0c0000c00010) already exists."
    assert kind_of(server_error("23505", text)) is FailureKind.COLLISION


@pytest.mark.parametrize(
    ("sqlstate", "text"),
    [
        ("42601", "syntax error at or near SELEC"),
        ("42P01", 'relation "business_events" does not exist'),
        ("42501", "permission denied for table entities"),
        ("23502", "null value in column event_name"),
        ("23503", "violates foreign key constraint transaction conflict"),
        ("23514", "violates check constraint oc000"),
        ("22P02", "invalid input syntax for type bigint"),
        ("22001", "value too long"),
        ("0A000", "cached plan must not change result type"),
        ("25006", "cannot execute INSERT in a read-only transaction"),
        ("57014", "canceling statement due to statement timeout"),
        ("54000", "program limit exceeded"),
    ],
)
def test_what_trying_again_cannot_mend_is_fatal(sqlstate: str, text: str) -> None:
    """Fact 13."""
    assert kind_of(server_error(sqlstate, text)) is FailureKind.FATAL


OURS = [
    psycopg.DataError(f"cannot load: {OBSERVED}"),
    psycopg.ProgrammingError(f"no result: {OBSERVED}"),
    ValueError("not a version"),
    TypeError("not a string"),
    KeyError("write_id"),
    msgspec.ValidationError("expected `int`, got `str`"),
    UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
]


@pytest.mark.parametrize("error", OURS)
def test_what_was_raised_on_our_side_before_sending_is_fatal(error: Exception) -> None:
    """Fact 13: an event's own text must not decide."""
    assert kind_of(error, sent=False) is FailureKind.FATAL


@pytest.mark.parametrize("error", [*OURS, ValueError(OBSERVED), RuntimeError("OC000")])
def test_what_was_raised_on_our_side_after_sending_leaves_the_outcome_in_doubt(
    error: Exception,
) -> None:
    """The answer may have been COMMIT: a defect in reading it proves nothing."""
    assert kind_of(error, sent=True) is FailureKind.IN_DOUBT


@pytest.mark.parametrize(
    "sqlstate", ["08000", "08006", "08P01", "40003", "57P01", "57P02", "57P03", "57P05", "XX000"]
)
def test_a_server_that_goes_away_leaves_the_outcome_in_doubt(sqlstate: str) -> None:
    assert kind_of(server_error(sqlstate, "terminating connection")) is FailureKind.IN_DOUBT


LOST = [
    psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"),
    psycopg.OperationalError("wait timeout expired"),
    psycopg.InterfaceError("the connection is closed"),
    ConnectionResetError(104, "Connection reset by peer"),
    TimeoutError(),
]


@pytest.mark.parametrize("error", LOST)
def test_a_connection_lost_after_sending_leaves_the_outcome_in_doubt(error: Exception) -> None:
    assert kind_of(error, sent=True) is FailureKind.IN_DOUBT


@pytest.mark.parametrize("error", LOST)
def test_a_connection_lost_before_sending_is_an_outage(error: Exception) -> None:
    assert kind_of(error, sent=False) is FailureKind.OUTAGE


@pytest.mark.parametrize("sqlstate", ["53300", "53400"])
def test_too_many_connections_is_an_outage(sqlstate: str) -> None:
    assert kind_of(server_error(sqlstate, "too many clients")) is FailureKind.OUTAGE


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refused_login_is_fatal(text: str) -> None:
    assert kind_of(psycopg.OperationalError(text), sent=False) is FailureKind.FATAL


@pytest.mark.parametrize("text", REFUSALS)
def test_no_text_makes_a_sent_write_certainly_not_stored(text: str) -> None:
    assert kind_of(psycopg.OperationalError(text), sent=True) is FailureKind.IN_DOUBT


def test_missing_tables_are_fatal() -> None:
    error = SchemaError("schema outbox lacks the outbox tables")
    error.__cause__ = server_error("42P01", "relation does not exist")
    assert kind_of(error) is FailureKind.FATAL
