"""``dsql-outbox verify``: what it prints, its exit codes, and Ctrl-C."""

import json
from typing import Any

import psycopg
from click.testing import CliRunner, Result

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer


def verify(url: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["verify", "--database", url, *words])


def test_exit_code_and_lines_say_whether_all_agree(url: str, sql: psycopg.Connection[Any]) -> None:
    assert verify(url).output == "events: 0; all agree\n"
    with Writer(Database(url)) as writer:
        ids = [
            writer.write(
                Event.new("Sold", [Entity("Car", f"\x1b[2J{n}", {"pin": "SECRET"})])
            ).event_id
            for n in range(3)
        ]
    done = verify(url)
    assert done.exit_code == 0
    assert done.stdout == "events: 3, headers: 3, entities: 3, messages: 3; all agree\n"
    sql.execute(
        'UPDATE outbox.business_events SET event_data = \'{"pin": "SECRET"}\' WHERE id = %s',
        (ids[1],),
    )
    sql.execute("DELETE FROM outbox.event_headers WHERE event_id = %s", (ids[2],))
    done = verify(url)
    assert done.exit_code == 1
    *lines, last = done.stdout.splitlines()
    other = "the payload is not the bytes of the event"
    assert {*lines} == {
        f"unreadable  business_events  {ids[1]}  the bytes are no event",
        f"other-payload  outbox  {_key(sql, ids[1])}  {other}",
        f"missing-header  business_events  {ids[2]}  Car/%1B[2J2@1 has no header",
        "entity-ahead  entities  Car/%1B[2J2  its version 1 has no header",
    }
    assert last == "events: 3, headers: 2, entities: 3, messages: 3, findings: 4"
    done = verify(url, "--json")
    *found, counts = map(json.loads, done.stdout.splitlines())
    assert {each["fault"] for each in found} == {line.split("  ")[0] for line in lines}
    assert set(found[0]) == {"fault", "table", "key", "text"}
    assert (counts["events"], counts["findings"]) == (3, 4)
    assert "SECRET" not in done.stdout


def test_only_events_saved_since_are_read(url: str, sql: psycopg.Connection[Any]) -> None:
    with Writer(Database(url)) as writer:
        writer.write(Event.new("Sold", [Entity("Car", "1")]))
    sql.execute(
        "UPDATE outbox.business_events SET event_data = '1', saved_date = now() - '2d'::interval"
    )
    sql.execute("DELETE FROM outbox.outbox")
    assert verify(url, "--since", "1d").stdout == (
        "events: 1 (1 saved earlier), headers: 1, entities: 1; all agree\n"
    )
    assert verify(url, "--since", "3d").exit_code == 1
    assert verify(url, "--since", "soon").exit_code == 2


def test_tables_that_are_missing_are_said(database_url: str) -> None:
    assert verify(database_url).exit_code == 78


def _key(sql: psycopg.Connection[Any], event_id: object) -> str:
    row = sql.execute(
        "SELECT shard || '/' || position || '/' || event_id FROM outbox.outbox WHERE event_id = %s",
        (event_id,),
    ).fetchone()
    assert row is not None
    return str(row[0])
