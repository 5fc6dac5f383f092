"""``schema check`` finds whatever a role has beyond its duty, and what it tells takes just that.

Each right is planted alone, for the duties by turns, because `check` compares all of them alike.
Roles get rights in more ways than `schema grant` uses: this is what a stranger, a migration tool or
``GRANT ALL`` may have left.
"""

from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import anyio
import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from tests.support.database_roles import as_role, made_roles
from tests.support.publisher.running_relays import event, in_order, quick_settings, running, until
from tests.support.watched_databases import WatchedDatabase

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database
from dsql_outbox.publisher import Publisher
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.roles import DUTIES, Duty, Roles, grants
from dsql_outbox.schema.tables import expected_shape
from dsql_outbox.testing import MemorySink
from dsql_outbox.writer import Writer


class Plant(NamedTuple):
    """What is planted, what `check` says of it, and what it says to run.

    ``{role}`` has the duty, ``{other}`` has none, and ``{right}`` is a right of the duty.
    """

    planted: str
    told: str
    remedy: str
    duties: tuple[Duty, ...] = DUTIES
    since: int = 150_000


def on_a_table(right: str, table: str = "business_events", **options: Any) -> Plant:
    return Plant(
        f'GRANT {right} ON outbox.{table} TO "{{role}}"',
        f"has {right} on outbox.{table},",
        f'REVOKE {right} ON "outbox"."{table}" FROM "{{role}}"',
        **options,
    )


def of_columns(planted: str, told: str, remedy: str, **options: Any) -> Plant:
    return Plant(
        f'GRANT {planted} ON outbox.business_events TO "{{role}}"',
        f"has {told} on outbox.business_events,",
        f'REVOKE {remedy} ON "outbox"."business_events" FROM "{{role}}"',
        **options,
    )


def attribute(name: str) -> Plant:
    return Plant(f'ALTER ROLE "{{role}}" {name}', f"has {name},", f'ALTER ROLE "{{role}}" NO{name}')


def member_of(role: str, brought: str, *, options: str = "", **more: Any) -> Plant:
    return Plant(
        f'GRANT "{role}" TO "{{role}}"{options}',
        f"is a member of {role}, by which it gets {brought},",
        f'REVOKE "{role}" FROM "{{role}}"',
        **more,
    )


def predefined(role: str, **options: Any) -> Plant:
    return member_of(role, f"what {role} may do", **options)


_TRUNCATES = 'GRANT TRUNCATE ON outbox.business_events TO "{other}"; '
_BROUGHT = "TRUNCATE on outbox.business_events"
_OF_TRUNCATE = 'REVOKE TRUNCATE ON "outbox"."business_events" FROM "{role}"'

PLANTS = {
    "truncate": on_a_table("TRUNCATE"),
    "trigger": on_a_table("TRIGGER"),
    "references": on_a_table("REFERENCES", "outbox"),
    "maintain": on_a_table("MAINTAIN", "outbox_leases", since=170_000),
    "on a view": on_a_table("DELETE", "outbox_backlog"),
    "what another duty needs": on_a_table("DELETE", "inbox_subjects"),
    "columns": of_columns(
        "UPDATE (id, event_data), SELECT (event_data)",
        "SELECT (event_data), UPDATE (event_data, id)",
        'SELECT ("event_data"), UPDATE ("event_data", "id")',
        duties=("publisher", "consumer"),
    ),
    "a column, and the table": of_columns(
        "TRUNCATE, REFERENCES (id)", "TRUNCATE, REFERENCES (id)", 'TRUNCATE, REFERENCES ("id")'
    ),
    "create in the schema": Plant(
        'GRANT CREATE ON SCHEMA outbox TO "{role}"',
        "has CREATE on schema outbox,",
        'REVOKE CREATE ON SCHEMA "outbox" FROM "{role}"',
    ),
    "create in the database": Plant(
        'GRANT CREATE ON DATABASE "{database}" TO "{role}"',
        "has CREATE on database {database},",
        'REVOKE CREATE ON DATABASE "{database}" FROM "{role}"',
    ),
    "option for the schema": Plant(
        'GRANT USAGE ON SCHEMA outbox TO "{role}" WITH GRANT OPTION',
        "may pass on USAGE on schema outbox,",
        'REVOKE GRANT OPTION FOR USAGE ON SCHEMA "outbox" FROM "{role}"',
    ),
    "option for the database": Plant(
        'GRANT CONNECT ON DATABASE "{database}" TO "{role}" WITH GRANT OPTION',
        "may pass on CONNECT on database {database},",
        'REVOKE GRANT OPTION FOR CONNECT ON DATABASE "{database}" FROM "{role}"',
    ),
    "option for a table": Plant(
        'GRANT {right} ON outbox.{table} TO "{role}" WITH GRANT OPTION',
        "may pass on {right} on outbox.{table},",
        'REVOKE GRANT OPTION FOR {right} ON "outbox"."{table}" FROM "{role}"',
    ),
    "passed on": Plant(
        'GRANT TRUNCATE ON outbox.business_events TO "{role}" WITH GRANT OPTION; '
        'GRANT USAGE ON SCHEMA outbox TO "{other}"; SET ROLE "{role}"; ' + _TRUNCATES,
        f"has {_BROUGHT},",
        f"{_OF_TRUNCATE} CASCADE",
    ),
    "from another grantor": Plant(
        'GRANT TRUNCATE ON outbox.business_events TO "{other}" WITH GRANT OPTION; '
        'GRANT USAGE ON SCHEMA outbox TO "{other}"; SET ROLE "{other}"; '
        'GRANT TRUNCATE ON outbox.business_events TO "{role}"',
        f"has {_BROUGHT},",
        f'SET ROLE "{{other}}"; {_OF_TRUNCATE}; RESET ROLE',
    ),
    "of everybody": Plant(
        "GRANT TRUNCATE ON outbox.business_events TO PUBLIC",
        f"has {_BROUGHT} as everybody has (PUBLIC),",
        'REVOKE TRUNCATE ON "outbox"."business_events" FROM PUBLIC',
    ),
    "of everybody in the schema": Plant(
        "GRANT CREATE ON SCHEMA outbox TO PUBLIC",
        "has CREATE on schema outbox as everybody has (PUBLIC),",
        'REVOKE CREATE ON SCHEMA "outbox" FROM PUBLIC',
    ),
    **{
        name.lower(): attribute(name)
        for name in ("BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION")
    },
    **{
        name: predefined(name)
        for name in (
            *("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"),
            *("pg_signal_backend", "pg_read_all_data", "pg_write_all_data"),
        )
    },
    "pg_maintain": predefined("pg_maintain", since=170_000),
    "inheriting": member_of("{other}", _BROUGHT)._replace(
        planted=_TRUNCATES + 'GRANT "{other}" TO "{role}"'
    ),
    "by SET ROLE alone": member_of("{other}", _BROUGHT, since=160_000)._replace(
        planted=_TRUNCATES + 'GRANT "{other}" TO "{role}" WITH INHERIT FALSE, SET TRUE'
    ),
    "to be given": member_of("{other}", _BROUGHT, since=160_000)._replace(
        planted=_TRUNCATES + 'GRANT "{other}" TO "{role}" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE'
    ),
    "through another role": member_of("{other}", "what pg_signal_backend may do")._replace(
        planted='GRANT pg_signal_backend TO "{other}"; GRANT "{other}" TO "{role}"'
    ),
    "by an attribute": member_of("{other}", "BYPASSRLS")._replace(
        planted='ALTER ROLE "{other}" BYPASSRLS; GRANT "{other}" TO "{role}"'
    ),
    "from two grantors": Plant(
        _TRUNCATES + 'GRANT "{other}" TO "{middle}" WITH ADMIN OPTION; '
        'GRANT "{other}" TO "{role}"; GRANT "{other}" TO "{role}" GRANTED BY "{middle}"',
        f"is a member of {{other}}, by which it gets {_BROUGHT},",
        'REVOKE "{other}" FROM "{role}" GRANTED BY "{middle}"; REVOKE "{other}" FROM "{role}"',
        since=160_000,
    ),
}


@pytest.fixture
def url(outbox_url: str) -> str:
    return outbox_url


@contextmanager
def others(url: str) -> Iterator[dict[str, str]]:
    """Two roles without a duty, which own nothing afterwards."""
    mark = uuid4().hex[:8]
    with made_roles(url, Roles(f"other_{mark}", f"middle_{mark}")) as roles:
        yield {"other": roles.writer or "", "middle": roles.publisher or ""}
        execute(url, f'REASSIGN OWNED BY "{roles.writer}" TO CURRENT_USER')


def execute(url: str, query: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(query.encode())


def run(url: str, *words: object) -> Result:
    return CliRunner().invoke(main, ["schema", *map(str, words), "--database", url])


def carry_out(url: str, text: str) -> list[str]:
    """Run what a text says to run. Return it in steps."""
    steps = text.rpartition(": run ")[2].split(", then ")
    for step in steps:
        if step.startswith("dsql-outbox "):
            done = CliRunner().invoke(main, [*step.split()[1:], "--database", url])
            assert done.exit_code == 0, done.output
        else:
            execute(url, step)
    return steps


ON_DSQL = ("truncate", "columns", "option for the schema", "of everybody", "inheriting")
"""A right of each kind: on the endpoint, roles are made and granted in many transactions."""


def plants() -> Iterator[Any]:
    elsewhere = pytest.mark.postgres_only("a right of its kind is planted there")
    for name in PLANTS:
        yield pytest.param(name, marks=[] if name in ON_DSQL else elsewhere)


@pytest.mark.parametrize("name", [*plants()])
def test_a_right_beyond_a_duty_is_told_and_taken_by_what_was_told(
    url: str, roles: Roles, name: str
) -> None:
    plant = PLANTS[name]
    with psycopg.connect(url) as connection, others(url) as names:
        if connection.info.server_version < plant.since:
            pytest.skip(f"PostgreSQL {plant.since // 10_000} brought it")
        duty = plant.duties[[*PLANTS].index(name) % len(plant.duties)]
        role = dict(roles.assignments())[duty]
        table, right = next((each.name, each.rights[0]) for each in grants(duty) if each.name)
        words = {**names, "role": role, "table": table, "right": right}
        words["database"] = connection.info.dbname
        execute(url, plant.planted.format(**words))
        found = run(url, "check", f"--{duty}", role)
        text = (
            f"role {role} {plant.told.format(**words)} which a {duty} does not need: "
            f"run {plant.remedy.format(**words)}\n"
        )
        assert (found.exit_code, found.stdout) == (1, text)
        carry_out(url, text.strip())
        found = run(url, "check", f"--{duty}", role)
        assert (found.exit_code, found.stdout) == (0, "schema outbox: no difference\n")


def test_an_owner_and_a_member_of_the_owner_have_more_than_a_duty(url: str) -> None:
    """No REVOKE helps against an owner, who takes the rights back."""
    with others(url) as names:
        owner, member = names.values()
        execute(url, f'ALTER SCHEMA outbox OWNER TO "{owner}"')
        for name in expected_shape():
            execute(url, f'ALTER TABLE outbox.{name} OWNER TO "{owner}"')
        execute(url, f'GRANT "{owner}" TO "{member}"')
        database = Database(as_role(url, owner))
        owns, gets = check(database, Roles(writer=owner, publisher=member))
        assert owns.text == (
            f"role {owner} owns schema outbox, outbox.business_events, outbox.dead_letter_times "
            f"and {len(expected_shape()) - 2} more, and an owner may do everything: "
            "name a role of its own for the writer"
        )
        assert gets.text.startswith(
            f"role {member} is a member of {owner}, by which it gets ownership of schema outbox, "
        )
        first, then = carry_out(url, gets.text)
        assert first.startswith("dsql-outbox schema grant")
        assert then == f'REVOKE "{owner}" FROM "{member}"'
        assert check(database, Roles(publisher=member)) == []


@pytest.mark.parametrize(
    "harmless",
    [
        'GRANT "{other}" TO "{role}"',
        'CREATE TABLE own (); GRANT ALL ON own TO "{other}"; GRANT "{other}" TO "{role}"',
        'GRANT SELECT ON outbox.outbox_leases TO "{other}"; GRANT "{other}" TO "{role}"',
        'GRANT SELECT (shard) ON outbox.outbox_leases TO "{role}"',
        "GRANT SELECT ON outbox.outbox_leases TO PUBLIC; GRANT USAGE ON SCHEMA outbox TO PUBLIC",
        'GRANT CONNECT, TEMPORARY ON DATABASE "{database}" TO "{role}"',
        'GRANT pg_read_all_stats TO "{role}"',
        'GRANT "{role}" TO "{other}"',
        'GRANT TRUNCATE ON outbox.outbox TO "{other}"',
    ],
)
def test_what_gives_a_role_nothing_beyond_its_duty_is_not_told(
    url: str, roles: Roles, harmless: str
) -> None:
    with psycopg.connect(url, autocommit=True) as connection, others(url) as names:
        words = {**names, "role": roles.writer, "database": connection.info.dbname}
        connection.execute(harmless.format(**words).encode())
        assert check(Database(url), Roles(writer=roles.writer)) == []


HELD = """
    SELECT c.relname, NULL AS field, x.privilege_type, x.is_grantable
    FROM pg_class c CROSS JOIN aclexplode(c.relacl) x
    WHERE c.relnamespace = 'outbox'::regnamespace AND x.grantee = %(role)s::regrole
    UNION ALL
    SELECT c.relname, a.attname, x.privilege_type, x.is_grantable
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid CROSS JOIN aclexplode(a.attacl) x
    WHERE c.relnamespace = 'outbox'::regnamespace AND x.grantee = %(role)s::regrole
    UNION ALL
    SELECT NULL, NULL, x.privilege_type, x.is_grantable
    FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) x
    WHERE n.nspname = 'outbox' AND x.grantee = %(role)s::regrole
"""


def held(connection: psycopg.Connection, role: str) -> set[Any]:
    """All rights of a role but those on columns of a table that it has the same right on."""
    found = set(connection.execute(HELD, {"role": f'"{role}"'}).fetchall())
    return {each for each in found if each[1] is None or (each[0], None, *each[2:]) not in found}


@pytest.mark.parametrize("duty", DUTIES)
def test_after_grant_all_and_what_was_told_a_role_has_just_the_rights_of_its_duty(
    url: str, roles: Roles, duty: Duty
) -> None:
    role = dict(roles.assignments())[duty]
    with psycopg.connect(url, autocommit=True) as connection:
        granted = held(connection, role)
        names = {"role": sql.Identifier(role)}
        for text in (
            "GRANT ALL ON ALL TABLES IN SCHEMA outbox TO {role} WITH GRANT OPTION",
            "GRANT ALL ON SCHEMA outbox TO {role}",
            "GRANT ALL (payload) ON outbox.outbox TO {role}",
        ):
            connection.execute(sql.SQL(text).format(**names))
        for drift in check(Database(url), Roles(**{duty: role})):
            carry_out(url, drift.text)
        assert held(connection, role) == granted
    assert check(Database(url), roles) == []


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["of its own", "of everybody", "of a group"])
async def test_a_publisher_continues_while_what_was_told_is_carried_out(url: str, way: str) -> None:
    """A REVOKE of all, and a GRANT of what is needed, would end it in between."""
    async with AsyncExitStack() as stack:
        role = stack.enter_context(made_roles(url)).publisher
        group = stack.enter_context(others(url))["other"]
        grantee = {"of its own": f'"{role}"', "of everybody": "PUBLIC", "of a group": f'"{group}"'}
        for text in (
            f"GRANT ALL ON ALL TABLES IN SCHEMA outbox TO {grantee[way]}",
            f"GRANT ALL ON SCHEMA outbox TO {grantee[way]}",
            f'GRANT "{group}" TO "{role}"',
        ):
            execute(url, text)
        sink, names = MemorySink(), Roles(publisher=role)
        publisher = Publisher(Database(as_role(url, role)), sink, quick_settings())
        writer = stack.enter_context(Writer(Database(url)))
        await stack.enter_async_context(running(publisher))
        found = check(Database(url), names)
        for written, remedy in enumerate(["", *(drift.text for drift in found)], start=1):
            if remedy:
                await anyio.to_thread.run_sync(carry_out, url, remedy)
            writer.write(event("car"))
            await until(lambda expected=written: len(sink.messages) >= expected)  # type: ignore[misc]
        # A REVOKE for each table and view, and one for the schema; or one of the membership.
        assert len(found) == (1 if way == "of a group" else len(expected_shape()) + 1)
        assert check(Database(url), names) == []
        in_order(sink.messages)


def test_a_server_that_shows_no_grants_is_asked_for_the_rights_on_tables(
    url: str, roles: Roles
) -> None:
    """Nothing says that Aurora DSQL knows `aclexplode`."""

    def refuse(number: int) -> None:
        if "aclexplode" in database.sent[number]:
            raise psycopg.errors.UndefinedFunction("function aclexplode does not exist")

    database = WatchedDatabase(url, before=refuse)
    (note,) = check(database, roles)
    assert note.is_note
    assert note.text == (
        "this server does not show all rights (function aclexplode does not exist): "
        "only SELECT, INSERT, UPDATE and DELETE on whole tables were compared"
    )
    execute(url, f'GRANT DELETE, TRUNCATE ON outbox.outbox TO "{roles.reader}"')
    execute(url, f'REVOKE SELECT ON outbox.entities FROM "{roles.reader}"')
    lacks, has = (each.text for each in check(database, roles) if not each.is_note)
    assert "lacks SELECT on outbox.entities" in lacks
    assert has.endswith(f'run REVOKE DELETE ON "outbox"."outbox" FROM "{roles.reader}"')
