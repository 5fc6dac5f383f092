"""Plans of statements that PostgreSQL has run."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import psycopg
from psycopg.sql import SQL, Literal


def analyzed(
    connection: psycopg.Connection[Any], text: str, parameters: Mapping[str, object]
) -> Mapping[str, Any]:
    """The plan of a statement that was prepared without its values, as for many executions."""
    names = dict.fromkeys(re.findall(r"%\((\w+)\)s", text))
    prepared = text % {name: f"${number}" for number, name in enumerate(names, 1)}
    values = [parameters[name] for name in names]
    given = SQL(", ").join([Literal(None if value is None else str(value)) for value in values])
    connection.execute(f"PREPARE page AS {prepared}".encode())
    try:
        explained = SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE page ({})").format(given)
        return cast("Any", connection.execute(explained).fetchone())[0][0]["Plan"]
    finally:
        connection.execute("DEALLOCATE page")


def nodes(plan: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)
