"""Exit code 78 and its message, for a database without the tables that a command needs."""

from collections.abc import Generator
from contextlib import contextmanager

import click
import psycopg

from dsql_outbox.outbox import SchemaError


class TablesMissing(click.ClickException):
    """The outbox tables are missing or too old: exit code 78, EX_CONFIG of sysexits.h."""

    exit_code = 78


@contextmanager
def tables_needed() -> Generator[None]:
    """Turn `SchemaError` into exit code 78; also a decorator of commands."""
    try:
        yield
    except SchemaError as error:
        raise TablesMissing(str(error)) from error


@contextmanager
def schema_error(schema: str) -> Generator[None]:
    """Turn the driver's errors for a missing table or column into `SchemaError`."""
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise SchemaError(
            f"schema {schema} lacks the outbox tables: run `dsql-outbox schema apply`"
        ) from error
    except psycopg.errors.UndefinedColumn as error:
        raise SchemaError(
            f"schema {schema} is older than this version: run `dsql-outbox schema apply`"
        ) from error
