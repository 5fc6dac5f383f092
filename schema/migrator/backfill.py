"""Fill a new column in existing rows, page by page along the primary key.

A transaction of Aurora DSQL may change 3,000 rows at most (its quotas). A page covers a third
of that, which leaves room for rows that are inserted while it runs. After an interrupted run
the next run starts at the first page again. A filled page changes nothing, because the WHERE
condition no longer matches there.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, Final, LiteralString, cast

from psycopg import sql

from dsql_outbox.outbox import Connection
from dsql_outbox.schema.named_statements import compose, execute

from .migration_text import Backfill

PAGE_ROWS: Final = 1_000
"""Rows per page, which is also one transaction."""


def backfill(connection: Connection, schema: str, wanted: Backfill) -> Iterator[int]:
    """Fill all pages, one transaction per page; yields about how many rows are read so far.

    Raises the driver's errors.
    """
    last: Sequence[Any] | None = None
    for pages in count(1):
        bound = execute(connection, _bound(schema, wanted, last)).fetchone()
        if bound is None:
            return
        execute(connection, _page(schema, wanted, last, bound))
        yield pages * PAGE_ROWS
        last = bound


def _bound(schema: str, wanted: Backfill, last: Sequence[Any] | None) -> bytes:
    columns = [sql.Identifier(name) for name in wanted.table.key]
    return compose(
        "backfill_bound",
        schema,
        table=sql.Identifier(wanted.table.name),
        key=_list(columns),
        above=_above(wanted, last),
        descending=_list([sql.SQL("{} DESC").format(column) for column in columns]),
        rows=sql.Literal(PAGE_ROWS),
    )


def _page(schema: str, wanted: Backfill, last: Sequence[Any] | None, bound: Sequence[Any]) -> bytes:
    return compose(
        "backfill_page",
        schema,
        table=sql.Identifier(wanted.table.name),
        key=_key(wanted),
        above=_above(wanted, last),
        assignments=_piece(wanted.assignments, schema),
        condition=_piece(wanted.condition, schema),
        last=_literals(bound),
    )


def _above(wanted: Backfill, last: Sequence[Any] | None) -> sql.Composable:
    """The condition that the key is above that of the page before; true for the first page."""
    if last is None:
        return sql.SQL("true")
    return sql.SQL("({}) > ({})").format(_key(wanted), _literals(last))


def _key(wanted: Backfill) -> sql.Composable:
    return _list([sql.Identifier(name) for name in wanted.table.key])


def _literals(values: Sequence[Any]) -> sql.Composable:
    return _list([sql.Literal(value) for value in values])


def _list(parts: Sequence[sql.Composable]) -> sql.Composable:
    return sql.SQL(", ").join(parts)


def _piece(text: str, schema: str) -> sql.Composable:
    """A piece of a migration as SQL; it counts as literal, because the package ships it."""
    literal = cast("LiteralString", text)  # type: ignore[redundant-cast]  # mypy has no LiteralString
    return sql.SQL(literal).format(schema=sql.Identifier(schema))
