"""The rights of the database roles: writer, publisher, operator, keeper, consumer, reader.

``schema/grants/`` holds the rights of each duty, one file per duty. They are parsed, compared
with the rights that a role has, and given to a role.
"""

import re
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Final, Literal, LiteralString, cast, get_args

import msgspec
import psycopg
from psycopg import sql

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SchemaError, SettingsError
from dsql_outbox.outbox.failure import FailureKind, kind_of

from .commands import apply_command
from .named_statements import execute, read_sql, statement
from .tables import Shape, read_shape

Duty = Literal["writer", "publisher", "operator", "keeper", "consumer", "reader"]

DUTIES: Final[tuple[Duty, ...]] = get_args(Duty)

Held = Mapping[str, AbstractSet[tuple[str | None, str]]]
"""The rights of each role, as pairs of table and right. The table is None for the schema."""

_GRANT: Final = re.compile(
    r"GRANT ([A-Z]+(?:, [A-Z]+)*) ON (?:SCHEMA \{schema\}|\{schema\}\.(\w+)) TO \{role\};"
)


class Roles(msgspec.Struct, frozen=True):
    """The database role of each duty, if any; one role may have several duties."""

    writer: str | None = None
    publisher: str | None = None
    operator: str | None = None
    keeper: str | None = None
    consumer: str | None = None
    reader: str | None = None

    def assignments(self) -> list[tuple[Duty, str]]:
        """Each duty that has a role, with that role."""
        found: list[tuple[Duty, str | None]] = [(duty, getattr(self, duty)) for duty in DUTIES]
        return [(duty, role) for duty, role in found if role]

    def by_name(self) -> dict[str, list[Duty]]:
        """Each role with its duties."""
        named = self.assignments()
        return {role: [duty for duty, other in named if other == role] for _, role in named}


class Grant(msgspec.Struct, frozen=True):
    """One line of a file: `rights` on the table or view `name`, or on the schema if it is None."""

    text: str
    rights: tuple[str, ...]
    name: str | None

    def statement(self, schema: str, role: str) -> bytes:
        """The GRANT statement for a role, without a semicolon."""
        literal = cast("LiteralString", self.text.removesuffix(";"))  # type: ignore[redundant-cast]  # mypy has no LiteralString
        text = sql.SQL(literal)
        names = {"schema": sql.Identifier(schema), "role": sql.Identifier(role)}
        return text.format(**names).as_bytes(None)


@cache
def grants(duty: Duty) -> tuple[Grant, ...]:
    """The grants of a duty. Raises `ValueError` for a line that is no grant."""
    lines = read_sql("grants", duty).splitlines()
    return tuple(_parse(line) for line in lines if not line.startswith("--"))


def lacking_rights(
    connection: Connection, schema: str, role: str
) -> dict[Duty, list[tuple[str, str | None]]]:
    """The rights that `role` lacks for each duty, as pairs of right and table.

    The table is None for a right on the schema. A duty of which a table is missing is left out,
    because its rights cannot be known then. Raises the driver's errors.
    """
    shape = read_shape(connection, schema)
    known: list[Duty] = [
        duty
        for duty in DUTIES
        if shape is not None and all(each.name in {None, *shape} for each in grants(duty))
    ]
    if not known:
        return {}
    held = read_held(connection, schema, [role])[role]
    return {duty: rights_beyond(duty, held) for duty in known}


def rights_beyond(
    duty: Duty, held: Collection[tuple[str | None, str]] = ()
) -> list[tuple[str, str | None]]:
    """The rights of a duty that are not among those that are held, as `lacking_rights` has them."""
    return [
        (right, grant.name)
        for grant in grants(duty)
        for right in grant.rights
        if (grant.name, right) not in held
    ]


def present_roles(
    connection: Connection, schema: str, roles: Collection[str]
) -> Mapping[str, bool]:
    """The roles that exist; the value says whether the role is a superuser."""
    query = statement("roles_present", schema)
    return dict(execute(connection, query, {"roles": array_literal(roles)}).fetchall())


def is_dsql(connection: Connection) -> bool:
    """Whether the server is Aurora DSQL: only there does ``sys.jobs`` exist."""
    try:
        execute(connection, statement("dsql_jobs", ""))
    except psycopg.errors.InsufficientPrivilege:
        pass  # the view exists, and this role may not read it
    except psycopg.Error as error:
        if kind_of(error) is not FailureKind.TABLES_MISSING:
            raise
        return False
    return True


def create_role(role: str) -> str:
    """The statement that creates a role."""
    return f"CREATE ROLE {quoted(role)} WITH LOGIN"


def read_held(connection: Connection, schema: str, roles: Collection[str]) -> Held:
    """The rights that roles have in any way: by a grant, a membership or ownership."""
    query = statement("rights_present", schema)
    parameters = {"schema": schema, "roles": array_literal(roles)}
    held: dict[str, set[tuple[str | None, str]]] = {role: set() for role in roles}
    for role, name, right in execute(connection, query, parameters).fetchall():
        held[role].add((name, right))
    return held


def _parse(line: str) -> Grant:
    found = _GRANT.fullmatch(line)
    if found is None:
        raise ValueError(f"cannot read the grant {line!r}")
    return Grant(line, tuple(found[1].split(", ")), found[2])


def quoted(*names: str) -> str:
    """A name in SQL, as of a role or a table with its schema."""
    return sql.Identifier(*names).as_string(None)


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
    named = roles.assignments()
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
        iam = _iam(roles.by_name()) if is_dsql(connection) else ()
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
        raise SchemaError(f"{what} is missing: run {apply_command(schema)}")
    # Every role may use the schema public, and DSQL refuses to grant it (SQLSTATE 0A000).
    return found.name is not None or schema != "public"


def _iam(names: Mapping[str, object]) -> tuple[str, ...]:
    text = sql.SQL("AWS IAM GRANT {} TO {}")
    return tuple(
        text.format(sql.Identifier(name), sql.Literal(_ARN.format(name.upper()))).as_string(None)
        for name in names
    )
