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
from tests.support.writer.session_transacts import OpenDoor, driver, new_event, open_door
from tests.support.writer.transacts import OpenTransactor, open_transactor

from dsql_outbox.observability.facts import AttemptEnded
from dsql_outbox.outbox import Database, MissingRight
from dsql_outbox.outbox.failure import FailureKind, kind_of
from dsql_outbox.schema.roles import Roles
from dsql_outbox.writer import http_status

__all__ = ["driver", "open_caller", "open_door", "open_transactor"]

RIGHTS = [
    "INSERT ON outbox.business_events",
    "SELECT ON outbox.outbox_targets",
    "USAGE ON SCHEMA outbox",
]
"""Rights without which a writer appends nothing."""

GUARDED = "SELECT ON outbox.business_events"
"""A right that an append does not need, but the guard at the end of `transact` does."""


def without(tables: Tables, right: str, role: str | None) -> str:
    """Take a right from a role. Return the text that is due."""
    tables.execute(f'REVOKE {right} FROM "{role}"')
    where = right.partition(" ON ")[2].lower()
    named = where if " " in where else where.replace("outbox.", "table ", 1)
    return (
        f"permission denied for {named}: let the owner of the tables run "
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
@pytest.mark.parametrize(("kind", "right"), in_turn(COMMON, OTHERS, RIGHTS))
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


def test_a_right_that_only_the_end_of_transact_needs_is_told_too(
    url: str, tables: Tables, roles: Roles, open_transactor: OpenTransactor
) -> None:
    """The guard before COMMIT looks whether the events of the run are there."""
    text = without(tables, GUARDED, roles.writer)
    writer = open_transactor(as_role(url, roles.writer))
    with pytest.raises(MissingRight) as raised:
        writer.transact(lambda work: work.append(work.new_event()))
    assert str(raised.value) == text
    assert tables.events() == []


@pytest.mark.postgres_only("the sessions of these callers pass the endpoint by")
def test_the_end_of_transact_in_a_session_tells_the_grant_of_its_own_role(
    url: str, tables: Tables, roles: Roles, open_door: OpenDoor
) -> None:
    """The writer has another role, which lacks nothing."""
    text = without(tables, GUARDED, roles.writer)
    door = open_door(as_role(url, roles.writer))
    with pytest.raises(MissingRight) as raised:
        door.transact(lambda _, append: append(new_event()))
    assert str(raised.value) == text
    assert tables.events() == []


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
