"""Commands whose role lacks a right name the command that grants it."""

import json
from collections.abc import Sequence

import psycopg
import pytest
from tests.support.commands import invoke
from tests.support.database_roles import as_role

from dsql_outbox.outbox import Entity, Event
from dsql_outbox.schema.roles import Duty, Roles

PUBLISH = ["publish", "--sink", "stdout:", "--until-empty"]
EVENT = Event.new("Moved", [Entity("Car", "C-1")])


@pytest.mark.parametrize(
    ("duty", "words", "table"),
    [
        ("publisher", PUBLISH, "outbox_leases"),
        ("publisher", [*PUBLISH, "--log-format", "json"], "outbox_publishers"),
        ("reader", ["status"], "outbox_backlog"),
        ("operator", ["topics", "pause", "events.Moved", "--reason", "x"], "outbox_topics"),
        ("keeper", ["forget", "--before", "10d", "--yes"], "outbox_jobs"),
        ("writer", ["write"], "business_events"),
    ],
)
def test_the_error_names_the_grant_that_helps(
    url: str, roles: Roles, duty: Duty, words: Sequence[str], table: str
) -> None:
    name = dict(roles.assignments())[duty]
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(f'REVOKE ALL ON outbox.{table} FROM "{name}"'.encode())
    where = ["--database", as_role(url, name)]
    failed = invoke(*words, *where, stdin=EVENT.to_json())
    assert failed.code == 1
    remedy = f"dsql-outbox schema grant --{duty} {name}"
    assert f"run `{remedy}`" in failed.err
    assert "permission denied for" in failed.err
    assert invoke(*remedy.split()[1:], "--database", url).code == 0
    again = invoke(*words, *where, stdin=EVENT.to_json())
    assert "schema grant" not in again.err


def test_a_role_that_has_all_rights_of_its_duty_is_sent_nowhere(url: str, roles: Roles) -> None:
    """An owner's trigger may refuse single events with the same SQLSTATE."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("""
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE 'not today' USING ERRCODE = '42501'; END $$
        """)
        owner.execute("""
            CREATE TRIGGER refuse BEFORE INSERT ON outbox.business_events
            FOR EACH ROW EXECUTE FUNCTION refuse()
        """)
    done = invoke("write", "--database", as_role(url, roles.writer or ""), stdin=EVENT.to_json())
    assert done.code == 1
    assert json.loads(done.err.splitlines()[0])["message"] == "not today"
    assert "schema grant" not in done.err
