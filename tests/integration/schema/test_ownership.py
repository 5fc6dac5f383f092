"""Tables of another role are refused, and what an owner has added is named."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from tests.support.database_roles import as_role, made_roles
from tests.support.dsql.server import beside
from tests.support.watched_databases import WatchedDatabase

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, SchemaError
from dsql_outbox.schema import apply
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.drift import Drift
from dsql_outbox.schema.migrator import ddl
from dsql_outbox.schema.roles import Roles, grant
from dsql_outbox.schema.tables import expected_shape, migrations

AUDIT = """CREATE TABLE IF NOT EXISTS {0}.audit (what text);
    CREATE OR REPLACE FUNCTION {0}.audit() RETURNS trigger LANGUAGE plpgsql AS
      'BEGIN INSERT INTO {0}.audit VALUES (current_user); RETURN NEW; END';
    CREATE TRIGGER audit BEFORE INSERT ON {0}.{1} FOR EACH ROW EXECUTE FUNCTION {0}.audit()"""
ADDED = {
    "trigger": (
        AUDIT.format("outbox", "entities"),
        ("trigger", "entities.audit"),
        "outbox.entities has the trigger audit, which is not of this version",
    ),
    "rule": (
        "CREATE RULE twice AS ON INSERT TO outbox.inbox DO ALSO NOTHING",
        ("rule", "inbox.twice"),
        "outbox.inbox has the rule twice, which is not of this version",
    ),
    "policy": (
        "CREATE POLICY mine ON outbox.outbox; ALTER TABLE outbox.outbox ENABLE ROW LEVEL SECURITY",
        ("table", "outbox"),
        "row security is on for outbox.outbox: roles see and write what its policies allow",
    ),
    "option": (
        "ALTER VIEW outbox.outbox_payloads SET (security_invoker = true)",
        ("view", "outbox_payloads"),
        "outbox.outbox_payloads has options: security_invoker=true",
    ),
}


class Owners:
    """Two roles that may create in a database, one of them as our deployer."""

    def __init__(self, url: str, deployer: str, stranger: str) -> None:
        self.url = url
        self.deployer = deployer
        self.stranger = stranger

    def execute(self, query: str, role: str | None = None) -> list[Any]:
        """Run statements as a role, or as the owner of the database, without the library."""
        url = as_role(self.url, role) if role else self.url
        with psycopg.connect(beside(url), autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self, role: str | None = None, schema: str = "outbox") -> Database:
        return Database(as_role(self.url, role) if role else self.url, schema=schema)


@pytest.fixture
def owners(database_url: str) -> Iterator[Owners]:
    mark = uuid4().hex[:8]
    names = Roles(writer=f"deployer_{mark}", publisher=f"stranger_{mark}")
    with made_roles(database_url, names) as roles:
        assert roles.writer is not None
        assert roles.publisher is not None
        found = Owners(database_url, roles.writer, roles.publisher)
        with psycopg.connect(database_url, autocommit=True) as connection:
            for role in (found.deployer, found.stranger):
                name = connection.info.dbname
                text = sql.SQL("GRANT CREATE ON DATABASE {} TO {}")
                connection.execute(text.format(sql.Identifier(name), sql.Identifier(role)))
        yield found
        found.execute("DROP SCHEMA IF EXISTS outbox CASCADE")


def run(owners: Owners, role: str | None, *words: str) -> Result:
    assert role
    words = ("schema", *words, "--database", as_role(owners.url, role))
    return CliRunner().invoke(main, words)


def differences(found: list[Drift]) -> list[tuple[str, str, str]]:
    return [(each.difference, each.part, each.name) for each in found]


def test_a_role_that_may_not_create_schemas_is_told_what_grants_it(owners: Owners) -> None:
    [[name]] = owners.execute("SELECT current_database()")
    granted = f'GRANT CREATE ON DATABASE "{name}" TO "{owners.deployer}"'
    owners.execute(granted.replace("GRANT", "REVOKE").replace("TO", "FROM"))
    refused = run(owners, owners.deployer, "apply")
    assert refused.exit_code == 78
    told = " ".join(refused.stderr.split())
    assert f"{owners.deployer} may not create schema outbox: let the owner" in told
    assert granted in told
    owners.execute(granted)
    assert run(owners, owners.deployer, "apply").exit_code == 0


@pytest.mark.parametrize("is_deployer", [True, False])
def test_a_schema_of_another_role_is_refused_before_anything_runs(
    owners: Owners, *, is_deployer: bool
) -> None:
    """As the deployer, and as a superuser, who is a member of every role for the server."""
    for statement in ddl("outbox").split(";\n"):
        if statement.strip():
            owners.execute(statement, owners.stranger)
    database = owners.database(owners.deployer if is_deployer else None)
    before = owners.execute("SELECT count(*) FROM outbox.schema_migrations")
    with pytest.raises(
        SchemaError,
        match=f"role {owners.stranger} owns schema outbox, table outbox.b.* and 19 more",
    ):
        apply(database)
    assert owners.execute("SELECT count(*) FROM outbox.schema_migrations") == before
    assert f"role {owners.stranger} owns" in check(owners.database())[0].text


@pytest.mark.postgres_only("DSQL has no triggers")
@pytest.mark.parametrize("table", ["business_events", "schema_migrations", "inbox_subjects"])
@pytest.mark.parametrize("schema", ["outbox", "public"])
def test_a_table_that_a_stranger_has_made_runs_nothing(
    owners: Owners, table: str, schema: str
) -> None:
    if schema == "outbox":
        owners.execute("CREATE SCHEMA outbox")  # as a superuser, who may own it
    owners.execute(f"GRANT ALL ON SCHEMA {schema} TO {owners.deployer}, {owners.stranger}")
    made = next(each for each in migrations() if each.name == table)
    owners.execute(made.ddl(schema).decode(), owners.stranger)
    owners.execute(AUDIT.format(schema, table), owners.stranger)
    done = run(owners, owners.deployer, "apply", "--schema", schema)
    assert done.exit_code == 78
    assert f"role {owners.stranger} owns table {schema}.{table}, and" in done.stderr
    assert owners.execute(f"SELECT * FROM {schema}.audit") == []
    assert ("different", "table", table) in differences(check(owners.database(schema=schema)))


@pytest.mark.postgres_only("DSQL has no functions that change rows")
@pytest.mark.parametrize("act", [apply, check])
def test_a_view_of_a_stranger_is_not_read(
    owners: Owners, act: Callable[[Database], object]
) -> None:
    """A function in a view runs as the role that reads the view, here a superuser."""
    owners.execute(
        "CREATE SCHEMA outbox; CREATE TABLE outbox.log (who text);"
        " CREATE FUNCTION outbox.who() RETURNS int LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO outbox.log VALUES (current_user); RETURN 1; END';"
        " CREATE VIEW outbox.schema_migrations AS"
        " SELECT outbox.who() AS version, 'x'::text AS name, 'x'::text AS checksum;"
        " CREATE VIEW outbox.outbox_leases AS SELECT outbox.who() AS shard",
        owners.stranger,
    )
    with suppress(SchemaError):
        assert {each.difference for each in act(owners.database())} == {"different"}  # type: ignore[attr-defined]
    assert owners.execute("SELECT * FROM outbox.log") == []


@pytest.mark.parametrize(("statement", "table"), [(2, "schema_migrations"), (9, "inbox")])
def test_a_table_that_appears_in_the_middle_is_refused_before_it_gets_a_row(
    owners: Owners, statement: int, table: str
) -> None:
    owners.execute(f"GRANT CREATE ON SCHEMA public TO {owners.deployer}, {owners.stranger}")
    made = next(each for each in migrations() if each.name == table)

    def squat(number: int) -> None:
        if number == statement:
            owners.execute(made.ddl("public").decode(), owners.stranger)
            granted = f"GRANT ALL ON public.{table} TO {owners.deployer}"
            owners.execute(granted, owners.stranger)

    database = WatchedDatabase(as_role(owners.url, owners.deployer), "public", before=squat)
    with pytest.raises(SchemaError, match=f"owns table public.{table}, and"):
        apply(database)
    assert owners.execute(f"SELECT count(*) FROM public.{table}") == [(0,)]


def test_a_relation_of_any_kind_with_our_name_has_an_owner(owners: Owners) -> None:
    owners.execute("CREATE SCHEMA outbox", owners.deployer)
    owners.execute(f"GRANT ALL ON SCHEMA outbox TO {owners.stranger}", owners.deployer)
    owners.execute("CREATE VIEW outbox.outbox AS SELECT 1 AS shard", owners.stranger)
    owners.execute("CREATE SEQUENCE outbox.inbox CACHE 1", owners.stranger)
    with pytest.raises(SchemaError, match=r"owns table outbox\.inbox, view outbox\.outbox, and"):
        apply(owners.database(owners.deployer))


def test_a_member_of_the_owner_may_apply(owners: Owners) -> None:
    owners.execute(f"GRANT {owners.stranger} TO {owners.deployer}")
    owners.execute("CREATE SCHEMA outbox", owners.stranger)
    database = owners.database(owners.deployer)
    apply(database)
    assert check(database) == []
    apply(database)


@pytest.mark.postgres_only("DSQL has one role that creates others")
def test_a_role_that_only_made_the_owner_is_no_member(owners: Owners) -> None:
    owners.execute(f"ALTER ROLE {owners.deployer} CREATEROLE")
    made = f"made_{uuid4().hex[:8]}"
    owners.execute(f"CREATE ROLE {made}", owners.deployer)
    try:
        owners.execute(f"CREATE SCHEMA outbox AUTHORIZATION {made}")
        with pytest.raises(SchemaError, match=f"role {made} owns schema outbox, and"):
            apply(owners.database(owners.deployer))
    finally:
        owners.execute(f"DROP OWNED BY {made}; DROP ROLE {made}")


def test_one_relation_of_another_role_is_a_difference_for_everybody(owners: Owners) -> None:
    apply(owners.database(owners.deployer))
    with made_roles(owners.url) as roles:
        grant(owners.database(), roles)
        operator = owners.database(roles.operator)
        note = ("note", "schema", "outbox")
        assert differences(check(operator)) == [note]
        done = run(owners, roles.operator, "check")
        assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "schema outbox: no difference")
        assert f"note: role {owners.deployer} owns the tables of schema outbox" in done.stdout

        owners.execute("ALTER TABLE outbox.inbox OWNER TO CURRENT_USER")  # a superuser
        assert differences(check(operator)) == [note]
        owners.execute(f"ALTER TABLE outbox.entities OWNER TO {owners.stranger}")
        different = ("different", "table", "entities")
        assert differences(check(owners.database(owners.deployer))) == [different]
        assert differences(check(operator)) == [note, different]
        assert run(owners, roles.operator, "check").exit_code == 1


@pytest.mark.postgres_only("DSQL has no triggers, rules, policies and options")
@pytest.mark.parametrize("name", ADDED)
def test_what_the_owner_has_added_is_noted_and_stops_no_deploy(owners: Owners, name: str) -> None:
    added, told, text = ADDED[name]
    database = owners.database(owners.deployer)
    apply(database)
    owners.execute(added, owners.deployer)
    apply(database)
    found = check(database)
    assert {each.difference for each in found} == {"note"}
    assert ((found[0].part, found[0].name), found[0].text) == (told, text)
    if name == "policy":
        assert [(each.part, each.name) for each in found[1:]] == [("policy", "outbox.mine")]
    done = run(owners, owners.deployer, "check")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"note: {text}\n")
    assert done.stdout.endswith("schema outbox: no difference\n")


def test_what_is_ours_alone_has_no_notes(owners: Owners) -> None:
    """A foreign key of a table of yours is a trigger of the server, and a view is a rule."""
    database = owners.database(owners.deployer)
    apply(database)
    owners.execute(
        "CREATE TABLE outbox.mine (id uuid PRIMARY KEY REFERENCES outbox.business_events (id))",
        owners.deployer,
    )
    assert check(database) == []
    assert len(expected_shape()) > 20
