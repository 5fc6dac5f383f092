"""A role without a right is told which grant helps, whatever the session is."""

import psycopg
import pytest
from tests.support.database_roles import as_role
from tests.support.pairs import in_turn
from tests.support.writer import workload_s
from tests.support.writer.caller_sessions import (
    COMMON,
    DRIVERS_ERRORS,
    OTHERS,
    OpenCaller,
    open_caller,
)
from tests.support.writer.callers import QUICK, Facts, OpenWriter
from tests.support.writer.checked_tables import Tables

from dsql_outbox.observability.facts import AttemptEnded
from dsql_outbox.outbox import Database, MissingRight
from dsql_outbox.outbox.failure import FailureKind, kind_of
from dsql_outbox.schema.roles import Roles
from dsql_outbox.writer import http_status

__all__ = ["open_caller"]

RIGHTS = {
    "INSERT ON outbox.business_events": "table business_events",
    "SELECT ON outbox.outbox_targets": "table outbox_targets",
    "USAGE ON SCHEMA outbox": "schema outbox",
}
"""What is taken from the role, and the name in the text."""


def without(tables: Tables, right: str, role: str | None) -> str:
    """Take a right from a role. Return the text that is due."""
    tables.execute(f'REVOKE {right} FROM "{role}"')
    return (
        f"permission denied for {RIGHTS[right]}: let the owner of the tables run "
        f"`dsql-outbox schema grant --writer {role}`"
    )


@pytest.mark.parametrize("right", RIGHTS)
def test_a_writer_without_a_right_is_told_the_grant(
    url: str, tables: Tables, roles: Roles, open_writer: OpenWriter, facts: Facts, right: str
) -> None:
    text = without(tables, right, roles.writer)
    writer = open_writer(as_role(url, roles.writer), QUICK, [facts])
    with pytest.raises(MissingRight) as raised:
        writer.write(workload_s.car_created())
    assert str(raised.value) == text
    assert isinstance(raised.value.__cause__, psycopg.errors.InsufficientPrivilege)
    assert kind_of(raised.value) is FailureKind.FORBIDDEN
    assert http_status(raised.value).status == 500
    assert len(facts.of(AttemptEnded)) == 1


@pytest.mark.client
@pytest.mark.parametrize(("kind", "right"), in_turn(COMMON, OTHERS, list(RIGHTS)))
def test_a_session_without_a_right_is_told_the_grant_of_its_own_role(
    url: str, tables: Tables, roles: Roles, open_caller: OpenCaller, kind: str, right: str
) -> None:
    """The writer has another role, which lacks nothing."""
    text = without(tables, right, roles.writer)
    caller = open_caller(kind, as_role(url, roles.writer), database=Database(url))
    with pytest.raises(MissingRight) as raised:
        caller.append(workload_s.car_created())
    assert str(raised.value) == text
    caller.rollback()


@pytest.mark.postgres_only("Aurora DSQL has no triggers")
@pytest.mark.parametrize("kind", COMMON)
def test_what_a_trigger_may_not_do_is_no_right_of_the_writer(
    url: str, tables: Tables, roles: Roles, open_caller: OpenCaller, kind: str
) -> None:
    tables.execute("CREATE TABLE outbox.audit ()")
    tables.execute("""
        CREATE FUNCTION outbox.audited() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO outbox.audit DEFAULT VALUES; RETURN NEW; END $$
    """)
    tables.execute("""
        CREATE TRIGGER audited BEFORE INSERT ON outbox.business_events
        FOR EACH ROW EXECUTE FUNCTION outbox.audited()
    """)
    caller = open_caller(kind, as_role(url, roles.writer))
    with pytest.raises(DRIVERS_ERRORS, match="permission denied for table audit"):
        caller.append(workload_s.car_created())
