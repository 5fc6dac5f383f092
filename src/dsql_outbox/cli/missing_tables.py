"""Exit code 78, for a database without the tables that a command needs."""

from collections.abc import Generator
from contextlib import contextmanager

import click

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
