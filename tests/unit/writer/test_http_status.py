"""What an HTTP layer answers for each way a write can end."""

from uuid import UUID

import psycopg
import pytest
from psycopg import errors

from dsql_outbox.outbox import (
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    OutcomeUnknown,
    SchemaError,
    StaleVersion,
)
from dsql_outbox.writer import http_status
from dsql_outbox.writer.http_status import HttpAnswer

EVENT = UUID("0198a3c0-0000-7000-8000-000000000001")
DUPLICATE = "duplicate key value violates unique constraint"
CONFLICT = errors.SerializationFailure("change conflicts with another transaction (OC000)")


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (InvalidEvent("entities", "is required"), HttpAnswer(422)),
        (EventTooLarge(2_000_000, 1_048_576), HttpAnswer(413)),
        (DuplicateEvent(EVENT, same_content=True), HttpAnswer(409)),
        (DuplicateEvent(EVENT, same_content=False), HttpAnswer(409)),
        (StaleVersion(EVENT, expected=3, actual=4), HttpAnswer(409)),
        (OutcomeUnknown(EVENT), HttpAnswer(503, retry_after=1)),
        (CONFLICT, HttpAnswer(500, retry_after=1)),
        (errors.UniqueViolation(f'{DUPLICATE} "entities_pkey"'), HttpAnswer(500, retry_after=1)),
        (errors.UniqueViolation(f'{DUPLICATE} "orders_pkey"'), HttpAnswer(500)),
        (TimeoutError(), HttpAnswer(503, retry_after=1)),
        (psycopg.OperationalError("Connection refused"), HttpAnswer(503, retry_after=5)),
        (errors.AdminShutdown("terminating connection"), HttpAnswer(503, retry_after=5)),
        (errors.TooManyConnections("too many clients"), HttpAnswer(503, retry_after=5)),
        (errors.ReadOnlySqlTransaction("cannot execute INSERT"), HttpAnswer(503, retry_after=5)),
        (errors.InvalidPassword("password authentication failed"), HttpAnswer(500)),
        (errors.InsufficientPrivilege("permission denied"), HttpAnswer(500)),
        (psycopg.OperationalError("password authentication failed"), HttpAnswer(500)),
        (SchemaError("schema outbox lacks the outbox tables"), HttpAnswer(500)),
        (ZeroDivisionError(), HttpAnswer(500)),
    ],
)
def test_each_ending_has_its_answer(error: Exception, answer: HttpAnswer) -> None:
    """Facts 9 and 14."""
    assert http_status(error) == answer


def test_exhausted_conflicts_may_be_called_unavailable() -> None:
    assert http_status(CONFLICT, exhausted=503) == HttpAnswer(503, retry_after=1)


def test_no_other_answer_depends_on_that_choice() -> None:
    assert http_status(DuplicateEvent(EVENT, same_content=True), exhausted=503).status == 409
    assert http_status(errors.SyntaxError("SELEC"), exhausted=503) == HttpAnswer(500)


def test_a_text_in_an_event_does_not_make_a_duplicate_a_conflict() -> None:
    """Fact 14."""
    error = DuplicateEvent(EVENT, same_content=True)
    error.__cause__ = CONFLICT
    assert http_status(error) == HttpAnswer(409)
