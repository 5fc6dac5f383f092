"""A missing table or column is told with the command that mends it."""

import psycopg
import pytest
from psycopg import errors

from dsql_outbox.outbox import SchemaError
from dsql_outbox.outbox.failure import schema_defect, schema_error, tables_expected


@pytest.mark.parametrize(
    ("sqlstate", "told"),
    [
        ("42P01", "schema s lacks the outbox tables: run `dsql-outbox schema apply`"),
        ("3F000", "schema s lacks the outbox tables: run `dsql-outbox schema apply`"),
        ("42703", "schema s is older than this version: run `dsql-outbox schema apply`"),
    ],
)
def test_a_schema_that_lacks_something_is_told_with_its_remedy(sqlstate: str, told: str) -> None:
    error = errors.lookup(sqlstate)("does not exist")
    with pytest.raises(SchemaError) as raised, tables_expected("s"):
        raise error
    assert str(raised.value) == str(schema_error(error, "s")) == told
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [errors.InsufficientPrivilege("no"), psycopg.OperationalError("gone")]
)
def test_other_errors_are_not_named_after_the_schema(error: psycopg.Error) -> None:
    assert schema_defect(error) is schema_error(error, "s") is None
    with pytest.raises(type(error)) as raised, tables_expected("s"):
        raise error
    assert raised.value is error


def test_a_missing_table_under_a_wrapper_may_be_one_of_the_callers() -> None:
    error = RuntimeError("the statement failed")
    error.__cause__ = errors.UndefinedTable("relation does not exist")
    assert schema_error(error, "s") is None
