"""Named statements: SQL text from files, with the schema's name filled in."""

from collections.abc import Mapping
from functools import cache, lru_cache, partial
from importlib.resources import files
from string import Formatter
from typing import Any, Final, LiteralString, TypeVar, cast

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.exchange import NumberedQuery, numbered
from dsql_outbox.outbox.unit_of_work.budget import MIGRATION
from dsql_outbox.outbox.unit_of_work.commit import Guards

T = TypeVar("T")

FOLDER: Final = files("dsql_outbox.schema")


def read_sql(folder: str, name: str) -> LiteralString:
    """The text of ``schema/<folder>/<name>.sql``, with the fragments that it names.

    It counts as a literal string for the type checker, because it ships with the package.
    """
    text = (FOLDER / folder / f"{name}.sql").read_text(encoding="utf-8")
    if folder == "statements":
        for fragment, part in _fragments().items():
            text = text.replace(f"{{{fragment}}}", part.rstrip())
    return cast("LiteralString", text)  # type: ignore[redundant-cast]  # mypy has no LiteralString


@cache
def _fragments() -> Mapping[str, str]:
    """The pieces of SQL that several statements have in common, by the names of their files."""
    return {name: _without_heading(read_sql("fragments", name)) for name in names("fragments")}


def names(folder: str) -> list[str]:
    """The names of the files in ``schema/<folder>``, sorted."""
    return sorted(entry.name.removesuffix(".sql") for entry in (FOLDER / folder).iterdir())


def render(text: LiteralString, schema: str, /, **literals: int | str) -> bytes:
    """Replace ``{schema}`` by a quoted identifier, and each other name by a quoted literal."""
    values = {name: sql.Literal(value) for name, value in literals.items()}
    return sql.SQL(text).format(schema=sql.Identifier(schema), **values).as_bytes(None)


@lru_cache(maxsize=256)
def statement(name: str, schema: str, /, **literals: int | str) -> bytes:
    """The statement ``schema/statements/<name>.sql`` for the tables of a schema, ready to run."""
    return render(_with_short_heading(read_sql("statements", name)), schema, **literals)


@lru_cache(maxsize=64)
def numbered_statement(name: str, schema: str) -> NumberedQuery:
    """The same statement as `exchange` and `pipeline` send it."""
    return numbered(name, statement(name, schema))


def _with_short_heading(text: LiteralString) -> LiteralString:
    """Leave the first line of the comment at the head, by which a DBA recognizes the statement.

    psycopg keeps the parts of a statement up to 4,096 bytes, and else takes each text apart anew.
    """
    first, end, rest = text.partition("\n")
    return first + end + _without_heading(rest)


def _without_heading(text: LiteralString) -> LiteralString:
    while text.startswith("--"):
        text = text.partition("\n")[2]
    return text


def compose(name: str, schema: str, /, **parts: sql.Composable) -> bytes:
    """As `statement`, for names that stand for identifiers or other pieces of SQL."""
    text = sql.SQL(read_sql("statements", name))
    return text.format(schema=sql.Identifier(schema), **parts).as_bytes(None)


@lru_cache(maxsize=32)
def guards(schema: str, own: str) -> Guards:
    """The statements around the runs of a body, of which `own` is the name of the body's guard."""
    return Guards(*(_with_places(name, schema) for name in ("run_mark", "run_guard", own)))


def _with_places(name: str, schema: str) -> bytes:
    """A statement with ``%(name)s`` in the place of each literal, for `with_literals`."""
    fields = {field for _, field, _, _ in Formatter().parse(read_sql("statements", name)) if field}
    places = {field: sql.Placeholder(field) for field in fields - {"schema"}}
    return compose(name, schema, **places)


def execute(
    connection: Connection, query: bytes, parameters: Mapping[str, object] | None = None
) -> psycopg.Cursor[Any]:
    """Run one statement that may run twice; up to 13 tries within about 9 seconds.

    Raises the driver's last error when all tries met a race, and any other
    error immediately.
    """
    return MIGRATION.run(partial(connection.execute, query, parameters))


def read(
    connection: Connection, query: bytes, kind: type[T], parameters: Mapping[str, object]
) -> list[T]:
    """Run one statement as `execute` does. Returns its rows as objects of `kind`.

    The columns are the arguments of `kind` by their names.
    """
    cursor = execute(connection, query, parameters)
    cursor.row_factory = class_row(kind)
    return cursor.fetchall()
