"""What each role can do, and what it is refused, on the real server."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import anyio
import psycopg
import pytest
from click.testing import CliRunner
from tests.support.checkout import ROOT
from tests.support.database_roles import as_role, made_roles
from tests.support.writer import workload_s
from tests.support.writer.callers import QUICK, Facts
from tests.support.writer.checked_tables import Tables

import dsql_outbox.schema
from dsql_outbox.cli.main import main
from dsql_outbox.observability.facts import BacklogAge
from dsql_outbox.operations import Messages, Selection
from dsql_outbox.outbox import Database, DuplicateEvent, StaleVersion
from dsql_outbox.outbox.database.exchange import numbered
from dsql_outbox.publisher import Publisher, PublisherSettings, Rejected, Retry
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.named_statements import read_sql, statement
from dsql_outbox.schema.roles import Roles
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import AsyncWriter, Writer

RIGHTS = ("SELECT", "INSERT", "UPDATE", "DELETE")

ALLOWED = {
    "writer": {
        "business_events": "SELECT INSERT",
        "event_headers": "SELECT INSERT",
        "entities": "SELECT INSERT UPDATE",
        "outbox": "INSERT",
        "outbox_backlog": "SELECT",
        "outbox_leases": "SELECT",
        "outbox_targets": "SELECT",
    },
    "publisher": {
        "outbox": "SELECT DELETE",
        "outbox_backlog": "SELECT",
        "outbox_payloads": "SELECT",
        "outbox_leases": "SELECT UPDATE",
        "outbox_targets": "SELECT",
        "outbox_publishers": "SELECT INSERT UPDATE DELETE",
        "outbox_failures": "SELECT INSERT UPDATE DELETE",
        "outbox_topics": "SELECT",
        "dead_letters": "INSERT",
        "dead_letter_times": "SELECT",
        "outbox_jobs": "SELECT",
    },
    "operator": {
        "schema_migrations": "SELECT",
        "business_events": "SELECT UPDATE",
        "event_headers": "SELECT",
        "entities": "SELECT",
        "outbox": "SELECT INSERT DELETE",
        "outbox_backlog": "SELECT",
        "outbox_leases": "SELECT INSERT DELETE",
        "outbox_targets": "SELECT INSERT UPDATE",
        "outbox_fills": "SELECT INSERT UPDATE",
        "outbox_publishers": "SELECT",
        "outbox_failures": "SELECT DELETE",
        "outbox_topics": "SELECT INSERT UPDATE DELETE",
        "dead_letters": "SELECT INSERT DELETE",
        "outbox_replays": "SELECT INSERT",
        "outbox_operations": "SELECT INSERT",
        "outbox_erasures": "SELECT",
        "outbox_jobs": "SELECT",
    },
    "keeper": {
        "business_events": "SELECT INSERT UPDATE DELETE",
        "event_headers": "SELECT INSERT UPDATE DELETE",
        "entities": "SELECT INSERT UPDATE",
        "outbox": "SELECT INSERT UPDATE",
        "outbox_leases": "SELECT",
        "outbox_targets": "SELECT",
        "outbox_fills": "SELECT UPDATE",
        "outbox_failures": "SELECT UPDATE",
        "dead_letters": "SELECT UPDATE",
        "outbox_replays": "SELECT DELETE",
        "outbox_operations": "INSERT",
        "outbox_erasures": "SELECT INSERT UPDATE",
        "outbox_jobs": "SELECT INSERT UPDATE",
    },
    "consumer": {
        "inbox": "SELECT INSERT DELETE",
        "inbox_subjects": "SELECT INSERT UPDATE",
    },
    "reader": {
        "business_events": "SELECT",
        "event_headers": "SELECT",
        "entities": "SELECT",
        "outbox": "SELECT",
        "outbox_backlog": "SELECT",
        "outbox_leases": "SELECT",
        "outbox_targets": "SELECT",
        "outbox_fills": "SELECT",
        "outbox_publishers": "SELECT",
        "outbox_failures": "SELECT",
        "outbox_topics": "SELECT",
        "dead_letters": "SELECT",
        "outbox_replays": "SELECT",
        "outbox_operations": "SELECT",
        "outbox_erasures": "SELECT",
        "outbox_jobs": "SELECT",
    },
}
"""What each duty may do to each table and view; nothing else."""

WHO_RUNS = {
    "writer": (
        *("backlog_age", "entity_state", "event_find"),
        *("event_guard", "event_stream", "event_write", "plain"),
        *("doorbell_ring", "write_layout"),
    ),
    "publisher": (
        *("failure", "lease", "outbox", "publisher", "shard_count", "shard_list"),
        *("status_jobs", "stuck_counts", "target_known", "topic_list"),
    ),
    "operator": (
        *("entity_version", "failure_behind", "failure_forget"),
        *("failure_page", "fill", "letter", "migrations_recorded", "outbox_bury"),
        *("event_lock", "operation", "record_payload"),
        *("replay", "rights_granted", "rights_present", "roles_acting", "roles_present"),
        *("roles_publishing", "roles_reached", "rows_estimate", "subject_events"),
        *(
            "schema_owners",
            "schema_shape",
            "schema_triggers",
            "shard_list",
            "shards_orphaned",
            "status",
        ),
        *("target_", "topic", "transactions", "verify", "waiting"),
    ),
    "keeper": (
        *("entity_state", "eras", "event_find", "event_lock", "event_write", "forget"),
        *("job", "operation_record", "plain", "rows_estimate", "verify", "write_layout"),
    ),
    "consumer": ("inbox",),
    "reader": (
        "failure_page",
        *("events_newest", "letter_find", "letter_groups", "letter_page", "waiting_newest"),
        *("operation_page", "record", "rights_present", "roles_publishing"),
        *("shards_orphaned", "status", "subject_events"),
        *("target_known", "target_list", "topic_page", "waiting_find"),
        *("verify", "waiting_first", "waiting_page", "waiting_payload"),
    ),
    "anybody": (
        "append_failed",
        "remember_failed",
        "doctor",
        "plan_by_index",
        "run_guard",
        "run_mark",
    ),
    "owner": (
        *("dsql_jobs", "events_first", "events_present", "migration_record", "operation_record"),
        "schema_create",
        *("schema_drop", "shards_add", "shards_present", "table_drop", "targets_default"),
        "view_drop",
    ),
}
"""By their first words; the owner migrates and runs the demo. `doctor` asks as anybody, and says
what it may not see."""

LITERALS = {
    **dict.fromkeys(("ids", "sources", "dedupe_ids"), "{}"),
    **dict.fromkeys(("event_id", "run_id", "write_id"), str(UUID(int=0))),
    "consumer": "text",
}
"""The text of a statement whose values a server reads when it plans it."""

FIELD = re.compile(r"(?<!\{)\{(\w+)\}")
NAMES = sorted(file.stem for file in Path(dsql_outbox.schema.__file__).parent.glob("statements/*"))


@pytest.fixture(params=["single", "plain"])
def settings(request: pytest.FixtureRequest) -> Any:
    return replace(QUICK, form=request.param, backlog_check=1e-9)


def url_of(url: str, roles: Roles, duty: str) -> str:
    return as_role(url, getattr(roles, duty))


def refused(url: str, query: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as error:
            connection.execute(query.encode())
        assert error.value.sqlstate == "42501"


def test_the_security_page_names_the_roles_that_may_read_each_table() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    held = [row for row in rows if len(row) == 4 and row[1].startswith("`")]
    assert held
    for data, where, _, readers in held:
        tables = where.replace("`", "").split(", ")
        may = [
            duty
            for duty, rights in ALLOWED.items()
            if all("SELECT" in rights.get(table, "") for table in tables)
        ]
        assert readers.split(", ") == may, data


def test_every_statement_is_somebodys() -> None:
    # Any role may LISTEN, and EXPLAIN does not take it.
    known = ("doorbell_listen", *(word for words in WHO_RUNS.values() for word in words))
    assert [name for name in NAMES if not name.startswith(known)] == []


@pytest.mark.parametrize("duty", ALLOWED)
def test_a_role_may_run_all_statements_of_its_duty(url: str, roles: Roles, duty: str) -> None:
    with psycopg.connect(url_of(url, roles, duty), autocommit=True) as connection:
        for name in (name for name in NAMES if name.startswith(WHO_RUNS[duty])):
            fields = {*FIELD.findall(read_sql("statements", name))} - {"schema"}
            literals = {field: LITERALS.get(field, 1) for field in fields}
            query = numbered(name, statement(name, "outbox", **literals)).text
            # Rights are checked when a plan is begun; the values do not matter.
            connection.execute(b"EXPLAIN (GENERIC_PLAN) " + query)


@pytest.mark.parametrize("duty", ALLOWED)
def test_a_role_may_do_to_each_table_what_its_duty_needs_and_no_more(
    url: str, tables: Tables, roles: Roles, duty: str
) -> None:
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'outbox'::regnamespace"
    names = [row["relname"] for row in tables.execute(f"{query} AND relkind IN ('r', 'v')")]
    with psycopg.connect(url_of(url, roles, duty), autocommit=True) as connection:
        found = {
            name: " ".join(right for right in RIGHTS if may(connection, right, name))
            for name in names
        }
    assert {name: rights for name, rights in found.items() if rights} == ALLOWED[duty]


def may(connection: psycopg.Connection, right: str, name: str) -> bool:
    row = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum = 1",
        (f"outbox.{name}",),
    ).fetchone()
    assert row is not None
    query = {
        "SELECT": f"SELECT {row[0]} FROM outbox.{name}",
        "INSERT": f"INSERT INTO outbox.{name} ({row[0]}) VALUES (NULL)",
        "UPDATE": f"UPDATE outbox.{name} SET {row[0]} = NULL",
        "DELETE": f"DELETE FROM outbox.{name}",
    }[right]
    try:
        connection.execute(f"EXPLAIN {query}".encode())
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def test_the_writer_writes_in_every_way(
    url: str, tables: Tables, roles: Roles, settings: Any
) -> None:
    facts = Facts()
    database = Database(url_of(url, roles, "writer"))
    with Writer(database, settings, hooks=[facts]) as writer:
        first = workload_s.car_created("CAR-7")
        writer.write(first)
        writer.write(workload_s.three_entities())
        with pytest.raises(DuplicateEvent):
            writer.write(first)
        assert writer.write(first, on_duplicate="return").status == "duplicate"
        writer.write(workload_s.car_created("CAR-7"), expected_version=1)
        with pytest.raises(StaleVersion):
            writer.write(workload_s.car_created("CAR-7"), expected_version=1)
        outcomes = writer.write_many(workload_s.distinct())
        assert {type(outcome).__name__ for outcome in outcomes} == {"Receipt"}
        writer.transact(lambda work: work.append(workload_s.loan_created(9)))
        with database.connect() as connection, connection.transaction():
            writer.append_to(connection, workload_s.loan_created(10))
        assert [event.version for event in writer.stream("Car", "CAR-7")] == [1, 2]
    assert facts.of(BacklogAge)
    tables.assert_consistent()


@pytest.mark.anyio
async def test_the_writer_coalesces(url: str, tables: Tables, roles: Roles, settings: Any) -> None:
    database = Database(url_of(url, roles, "writer"))
    async with AsyncWriter(database, replace(settings, coalesce=2)) as writer:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(writer.write, workload_s.car_created("CAR-7"))
        assert [event.version async for event in writer.stream("Car", "CAR-7")] == [*range(1, 21)]
        await writer.write_many(workload_s.distinct())
    tables.assert_consistent()


@pytest.mark.anyio
async def test_the_publisher_relays_fails_and_buries(
    url: str, tables: Tables, roles: Roles
) -> None:
    with Writer(Database(url_of(url, roles, "writer")), QUICK) as writer:
        events = [writer.write(workload_s.car_created(f"CAR-{n}")).event_id for n in range(4)]
    sink = MemorySink()
    sink.fail(events[0], Retry("not now"))
    sink.fail(events[1], Rejected("never"))
    database = Database(url_of(url, roles, "publisher"))
    settings = PublisherSettings(backoff_base=0.001, backoff_cap=0.01)
    with anyio.fail_after(60):
        await Publisher(database, sink, settings).run(until_empty=True)
    assert set(sink.ids) == {*events} - {events[1]}
    assert tables.messages() == []
    assert tables.execute("SELECT event_id FROM outbox.dead_letters") == [{"event_id": events[1]}]
    assert tables.execute("SELECT event_id FROM outbox.outbox_failures") == []


SEEN = """CREATE FUNCTION pg_temp.seen(event json) RETURNS boolean LANGUAGE plpgsql COST 0.0001
    AS 'BEGIN RAISE NOTICE ''%'', event; RETURN true; END'"""


@pytest.mark.postgres_only("DSQL has no functions in other languages than SQL, and no settings")
@pytest.mark.parametrize("off", [(), ("nestloop",), ("nestloop", "hashjoin"), ("indexscan",)])
@pytest.mark.parametrize("is_fresh", [True, False])
def test_the_publisher_reads_no_event_that_no_message_names(
    url: str, roles: Roles, off: tuple[str, ...], *, is_fresh: bool
) -> None:
    """Not even by a condition that shows what it is asked about, or by the error of a cast."""
    with Writer(Database(url)) as writer:
        receipts = writer.write_many([workload_s.car_created(f"CAR-{n}") for n in range(40)])
    named = receipts[7].event_id
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("DELETE FROM outbox.outbox WHERE event_id <> %s", (named,))
        owner.execute("UPDATE outbox.outbox SET payload = NULL")
        if is_fresh:
            owner.execute("ANALYZE outbox.business_events, outbox.outbox")
    shown: list[str] = []
    with psycopg.connect(url_of(url, roles, "publisher"), autocommit=True) as connection:
        connection.add_notice_handler(lambda told: shown.append(told.message_primary or ""))
        for each in off:
            connection.execute(f"SET enable_{each} = off".encode())
        connection.execute(SEEN)
        view = "SELECT event_data::text FROM outbox.outbox_payloads WHERE"
        rows = connection.execute(f"{view} pg_temp.seen(event_data)".encode()).fetchall()
        assert {text for (text,) in rows} == set(shown)
        assert len(shown) == len(rows) == 1
        assert str(named) in shown[0]
        with pytest.raises(psycopg.errors.InvalidTextRepresentation) as error:
            connection.execute(f"{view} (event_data::text)::int = 1".encode())
        assert str(named) in str(error.value)


def test_the_operator_sees_how_it_stands(url: str, roles: Roles) -> None:
    with Writer(Database(url), QUICK) as writer:
        writer.write(workload_s.car_created())
    operators = url_of(url, roles, "operator")
    done = CliRunner().invoke(main, ["status", "--database", operators])
    assert done.exit_code == 0, done.output
    assert check(Database(operators), roles) == []
    words = ["schema", "check", "--writer", str(roles.writer), "--database", operators]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output


def test_the_operator_replays_and_looks_after_what_failed(
    url: str, tables: Tables, roles: Roles
) -> None:
    events = [workload_s.car_created() for _ in range(3)]
    with Writer(Database(url), QUICK) as writer:
        writer.write_many(events)
    sink = MemorySink()
    sink.fail(events[0].id, Rejected("never"))
    anyio.run(partial(Publisher(Database(url), sink).run, until_empty=True))
    with Writer(Database(url), QUICK) as writer:
        writer.write(blocked := workload_s.car_created())
    sink.fail(blocked.id, Rejected("never"))
    blocking = PublisherSettings(on_dead_letter="block")
    anyio.run(partial(Publisher(Database(url), sink, blocking).run, until_empty=True))

    async def operate() -> list[UUID]:
        operators = Database(url_of(url, roles, "operator"))
        failing, dead = Selection(state="failing"), Selection(state="dead")
        async with Messages(operators) as messages:
            again = [each.event_id async for each in messages.retry(dead)]
            replay = messages.replay(Selection(ids=(events[1].id,)))
            again += [each.event_id async for each in replay]
            again += [each.event_id async for each in messages.drop(failing)]
            again += [each.event_id async for each in messages.drop(dead)]
        return again

    ids = anyio.run(operate)
    assert ids == [events[0].id, events[1].id, blocked.id, blocked.id]
    assert {row["event_id"] for row in tables.messages()} == {events[0].id, events[1].id}


@pytest.mark.parametrize("duty", ALLOWED)
def test_no_role_changes_tables(url: str, roles: Roles, duty: str) -> None:
    for query in (
        "ALTER TABLE outbox.outbox ADD COLUMN note text",
        "DROP VIEW outbox.outbox_backlog",
        "CREATE TABLE outbox.mine (id int)",
        "TRUNCATE outbox.outbox",
    ):
        refused(url_of(url, roles, duty), query)


def test_a_stranger_sees_nothing(url: str) -> None:
    with made_roles(url, Roles(writer=f"stranger_{uuid4().hex}")) as roles:
        refused(url_of(url, roles, "writer"), "SELECT shard FROM outbox.outbox_backlog")
