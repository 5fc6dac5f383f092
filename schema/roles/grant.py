"""Grant each role the rights of its duty."""

from collections.abc import Mapping

import msgspec
from psycopg import sql

from dsql_outbox.outbox import Connection, Database, SchemaError, SettingsError
from dsql_outbox.schema.migrator.execution import execute
from dsql_outbox.schema.migrator.index_build import has_jobs
from dsql_outbox.schema.migrator.remedies import Remedies
from dsql_outbox.schema.migrator.shape import Shape, read_shape

from .rights import DUTIES, Grant, Roles, create_role, grants, present_roles

_ARN = "arn:aws:iam::ACCOUNT:role/IAM_ROLE_OF_{}"


class Granted(msgspec.Struct, frozen=True, rename="camel"):
    """The result of `grant`.

    `statements` were run, or would be without `dry_run`. `iam` are statements that
    let an IAM role connect as a database role. The owner of an Aurora DSQL cluster
    fills in the names and runs them. On PostgreSQL `iam` is empty.
    """

    schema: str
    dry_run: bool
    statements: tuple[str, ...]
    iam: tuple[str, ...]


def grant(database: Database, roles: Roles, *, dry_run: bool = False) -> Granted:
    """Grant each role the rights of its duty; other rights of the role stay.

    The roles and the tables must exist. `grant` may run any number of times, and every
    statement is its own transaction.

    Raises `SettingsError` when no role is named or a role does not exist,
    `SchemaError` when tables are missing, and the driver's errors.
    """
    named = roles.named()
    if not named:
        raise SettingsError(
            f"no role is named: give one for the {', '.join(DUTIES[:-1])} or {DUTIES[-1]}"
        )
    schema = database.schema
    with database.connect() as connection:
        _require_roles(connection, schema, roles)
        shape = read_shape(connection, schema)
        wanted = [(role, found) for duty, role in named for found in grants(duty)]
        queries = [
            found.statement(schema, role)
            for role, found in wanted
            if _applies(schema, shape, found)
        ]
        for query in queries if not dry_run else ():
            execute(connection, query)
        iam = _iam(roles.by_name()) if has_jobs(connection) else ()
    return Granted(schema, dry_run, tuple(query.decode() for query in queries), iam)


def _require_roles(connection: Connection, schema: str, roles: Roles) -> None:
    names = roles.by_name()
    present = present_roles(connection, schema, names)
    missing = [name for name in names if name not in present]
    if missing:
        found = ", ".join(missing)
        told = f"roles {found} do not exist" if len(missing) > 1 else f"role {found} does not exist"
        raise SettingsError(f"{told}: run {'; '.join(map(create_role, missing))}")


def _applies(schema: str, shape: Shape | None, found: Grant) -> bool:
    if shape is None or (found.name is not None and found.name not in shape):
        what = schema if shape is None else f"{schema}.{found.name}"
        raise SchemaError(f"{what} is missing: run {Remedies(schema).apply()}")
    # Every role may use the schema public, and DSQL refuses to grant it (SQLSTATE 0A000).
    return found.name is not None or schema != "public"


def _iam(names: Mapping[str, object]) -> tuple[str, ...]:
    text = sql.SQL("AWS IAM GRANT {} TO {}")
    return tuple(
        text.format(sql.Identifier(name), sql.Literal(_ARN.format(name.upper()))).as_string(None)
        for name in names
    )
