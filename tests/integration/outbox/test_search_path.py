"""Names and operators that others put into ``public`` are not used by our connections."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import anyio
import psycopg
import pytest
from click.testing import CliRunner
from tests.support.database_roles import as_role
from tests.support.doctor_runs import found, run

from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database, Entity, Event, Message
from dsql_outbox.publisher import Answer, Delivered, Publisher, Rejected
from dsql_outbox.schema import apply
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.roles import Roles, grant
from dsql_outbox.writer import AsyncTransaction, AsyncWriter, Transaction, Writer
from dsql_outbox.writer.tuned_settings import TunedSettings

pytestmark = pytest.mark.postgres_only("on DSQL nobody but admin can create in public")

TRAP = """
CREATE TABLE public.sprung (who name, what text);
GRANT INSERT ON public.sprung TO PUBLIC;
CREATE FUNCTION public.same(varchar, varchar) RETURNS bool LANGUAGE sql VOLATILE AS
  $$INSERT INTO public.sprung VALUES (current_user, '='); SELECT $1::text = $2::text$$;
CREATE FUNCTION public.joined(text, bigint) RETURNS text LANGUAGE sql VOLATILE AS
  $$INSERT INTO public.sprung VALUES (current_user, '||'); SELECT $1 || $2::text$$;
CREATE FUNCTION public.joined(text, int) RETURNS text LANGUAGE sql VOLATILE AS
  $$INSERT INTO public.sprung VALUES (current_user, '||'); SELECT $1 || $2::text$$;
CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.same);
CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = bigint, FUNCTION = public.joined);
CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = int, FUNCTION = public.joined);
"""


@pytest.fixture
def url(outbox_url: str) -> str:
    return outbox_url


@pytest.fixture
def trap(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute(TRAP)
        yield owner


def sprung(trap: psycopg.Connection[Any]) -> list[tuple[str, str]]:
    return trap.execute("SELECT DISTINCT who, what FROM public.sprung").fetchall()


def event(entity_id: str) -> Event:
    return Event.new("CarMoved", [Entity("Car", entity_id, {"km": 1})])


def test_the_trap_works_on_a_connection_that_is_not_ours(
    url: str, trap: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 'a'::varchar = 'a'::varchar, 'a'::text || 1::bigint")
    assert {what for _, what in sprung(trap)} == {"=", "||"}


class Rejecting:
    """Rejects the messages of entity b; the others are delivered."""

    system = "test"

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        for index, message in enumerate(messages):
            answer(index, Rejected("b") if message.key.endswith("b") else Delivered())


@pytest.mark.parametrize("form", ["single", "plain"])
def test_writer_publisher_operator_and_migrator_run_nothing_of_others(
    url: str, roles: Roles, trap: psycopg.Connection[Any], form: Literal["single", "plain"]
) -> None:
    settings = TunedSettings(form=form)
    with Writer(Database(as_role(url, roles.writer)), settings) as writer:
        writer.write(event("a"))
        writer.write_many([event("a"), event("b")])
        list(writer.stream("Car", "a"))

    async def relay() -> None:
        async with AsyncWriter(Database(as_role(url, roles.writer)), settings) as writer:
            await writer.write(event("a"))
        await Publisher(Database(as_role(url, roles.publisher)), Rejecting()).run(until_empty=True)

    anyio.run(relay)
    operator = as_role(url, roles.operator)
    for words in (
        "status",
        "messages list",
        "messages retry --all",
        "messages replay --entity Car/a --yes",
        "doctor",
        "schema check",
    ):
        done = CliRunner().invoke(main, [*words.split(), "--database", operator])
        assert done.exit_code in (0, 1), (words, done.output)
    apply(Database(url), shards=32)
    check(Database(url), roles)
    grant(Database(url), roles)
    assert sprung(trap) == []


def test_the_function_given_to_transact_has_the_path_of_its_role(
    url: str, roles: Roles, trap: psycopg.Connection[Any]
) -> None:
    trap.execute("CREATE TABLE public.loans (id int); GRANT INSERT ON public.loans TO PUBLIC")
    asked = "SELECT current_setting('search_path')"

    def pay(transaction: Transaction) -> str:
        transaction.connection.execute("INSERT INTO loans VALUES (1)")
        (path,) = transaction.connection.execute(asked).fetchall()[0]
        return str(path)

    async def pay_async(transaction: AsyncTransaction) -> str:
        await transaction.connection.execute("INSERT INTO loans VALUES (1)")
        (path,) = (await (await transaction.connection.execute(asked)).fetchall())[0]
        return str(path)

    async def in_tasks(database: Database) -> None:
        async with AsyncWriter(database) as writer:
            await writer.write(event("a"))
            assert await writer.transact(pay_async) == '"$user", public'
            await writer.write(event("a"))

    database = Database(as_role(url, roles.writer))
    with Writer(database) as writer:
        writer.write(event("a"))
        assert writer.transact(pay) == '"$user", public'
        writer.write(event("a"))
    anyio.run(in_tasks, database)
    assert sprung(trap) == []


def test_a_path_in_the_url_is_that_of_transact_and_of_nothing_else(url: str) -> None:
    database = Database(f"{url}?options=-c%20search_path%3Dmine")
    for role_path, path in ((False, "pg_catalog"), (True, "mine")):
        with database.connect(role_path=role_path) as connection:
            assert connection.execute("SHOW search_path").fetchone() == (path,)


def test_settings_of_the_environment_stay(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=7MB")
    with Database(url, isolation="repeatable read").connect() as connection:
        assert connection.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert connection.execute("SHOW search_path").fetchone() == ("pg_catalog",)


def test_doctor_warns_where_others_may_create_in_public(
    url: str, roles: Roles, trap: psycopg.Connection[Any]
) -> None:
    told = found(run(url, "--json"))["search path"]
    assert (told["verdict"], told["text"]) == (
        "ok",
        "pg_catalog; only its owner may create in public",
    )
    trap.execute(f'GRANT CREATE ON SCHEMA public TO "{roles.writer}", PUBLIC')
    told = found(run(as_role(url, roles.operator), "--json"))["search path"]
    assert told["verdict"] == "warn"
    assert f"PUBLIC, {roles.writer} may create in public" in told["text"]
    assert "REVOKE CREATE ON SCHEMA public FROM PUBLIC" in told["remedy"]
