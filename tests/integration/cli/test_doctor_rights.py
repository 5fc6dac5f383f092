"""What ``dsql-outbox doctor`` tells a role about its rights: those of ``schema/grants``."""

import psycopg
import pytest
from click.testing import CliRunner
from tests.support.database_roles import as_role
from tests.support.doctor_runs import found, run

from dsql_outbox.cli.doctor.checks import role as check_role
from dsql_outbox.cli.doctor.examined_database import ExaminedDatabase
from dsql_outbox.cli.main import main
from dsql_outbox.outbox import Database
from dsql_outbox.schema.comparison import check
from dsql_outbox.schema.roles import DUTIES, Duty, Roles, grants


@pytest.mark.parametrize("duty", DUTIES)
def test_each_role_that_grant_makes_passes_doctor_and_check(
    url: str, roles: Roles, duty: Duty
) -> None:
    name = dict(roles.assignments())[duty]
    done = run(as_role(url, name), "--json")
    told = found(done)["role"]
    assert (done.exit_code, told["verdict"]) == (0, "ok")
    assert told["text"] == f"{name} has the rights of {duty}"
    assert check(Database(url), Roles(**{duty: name})) == []


@pytest.mark.parametrize("duty", DUTIES)
def test_every_right_of_the_grants_is_named_when_it_is_missing(
    url: str, roles: Roles, duty: Duty
) -> None:
    name = dict(roles.assignments())[duty]
    database = Database(as_role(url, name))
    with psycopg.connect(url, autocommit=True) as owner:
        for given in grants(duty):
            thing = "SCHEMA outbox" if given.name is None else f"outbox.{given.name}"
            for right in given.rights:
                owner.execute(f'REVOKE {right} ON {thing} FROM "{name}"'.encode())
                with ExaminedDatabase(database) as visit:
                    (told,) = check_role(visit)
                assert told.verdict == "fail"
                assert f"as {duty} it lacks {right} on {given.name or 'schema outbox'}" in told.text
                owner.execute(f'GRANT {right} ON {thing} TO "{name}"'.encode())
        owner.execute(f'REVOKE {right} ON {thing} FROM "{name}"'.encode())
    assert told.remedy is not None
    words = told.remedy.removeprefix("run dsql-outbox ").split()
    assert CliRunner().invoke(main, [*words, "--database", url]).exit_code == 0
    with ExaminedDatabase(database) as visit:
        (told,) = check_role(visit)
    assert told.verdict == "ok"
