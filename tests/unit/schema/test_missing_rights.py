"""An error of the database about a right, and the grant that helps."""

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors

from dsql_outbox.outbox import Database
from dsql_outbox.schema.missing_rights import missing_right

DATABASE = Database("postgresql://shop@127.0.0.1/shop", schema="sales")


class Translated(errors.InsufficientPrivilege):
    """The error of a server in another language."""

    @property
    def diag(self) -> Any:
        text, source = self.args
        return SimpleNamespace(message_primary=text, source_function=source)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (errors.InsufficientPrivilege("permission denied for table inbox"), True),
        (errors.InsufficientPrivilege("permission denied for schema sales"), True),
        (errors.InsufficientPrivilege("permission denied for table entities"), False),
        (errors.InsufficientPrivilege("permission denied for schema outbox"), False),
        (errors.InsufficientPrivilege("the inbox is closed today"), False),
        (errors.UndefinedTable("permission denied for table inbox"), False),
        (RuntimeError("permission denied for table inbox"), False),
        (Translated("keine Berechtigung für Tabelle inbox", "aclcheck_error"), True),
        (Translated("テーブルinboxへのアクセスが拒否されました", "aclcheck_error"), True),
        (Translated("die inbox ist heute zu", "exec_stmt_raise"), False),
    ],
)
def test_the_grant_is_told_for_a_right_that_the_duty_needs(error: Exception, *, told: bool) -> None:
    found = missing_right(error, DATABASE, "consumer")
    assert (found is not None) == told
    if found:
        assert found.__cause__ is error
        assert found.command == "dsql-outbox schema grant --schema sales --consumer shop"


def test_a_role_that_no_url_names_is_left_open() -> None:
    database = Database("postgresql:///shop")
    error = psycopg.errors.InsufficientPrivilege("permission denied for table outbox")
    found = missing_right(error, database, "writer")
    assert found is not None
    assert found.command == "dsql-outbox schema grant --writer ROLE"
