"""Statements on libpq's own terms, for the writes, where each microsecond counts.

psycopg's cursor looks up how to adapt each value and each column, anew for every
execution: about half of what a write costs its process (docs/performance.md).
A write needs none of it: all its values are text, and so is the answer.
"""

import re
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec
from psycopg import errors, generators
from psycopg.pq import ExecStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from .connection import AsyncConnection, Connection

PREPARE_AFTER: Final = 5
"""Executions on one connection before the statement is prepared; psycopg's own default."""

_HASH_DIGITS: Final = 16

_PARAMETER: Final = re.compile(rb"%\((\w+)\)s")


class NumberedQuery(msgspec.Struct, frozen=True):
    """A statement as psycopg takes it, and as the server does: ``$1`` for the first parameter.

    `name` is what it is called once it is prepared. It contains a hash of the text:
    behind a transaction pooler others prepare theirs in the same sessions.
    """

    name: bytes
    query: bytes
    text: bytes
    parameters: tuple[str, ...]


def numbered(name: str, query: bytes) -> NumberedQuery:
    """From psycopg's ``%(name)s`` to the server's ``$1``."""
    names = list(dict.fromkeys(found.decode() for found in _PARAMETER.findall(query)))
    places = {each.encode(): b"$%d" % n for n, each in enumerate(names, start=1)}
    text = _PARAMETER.sub(lambda found: places[found[1]], query).replace(b"%%", b"%")
    unique = f"{name}_{sha256(text).hexdigest()[:_HASH_DIGITS]}"
    return NumberedQuery(unique.encode(), query, text, tuple(names))


def exchange(
    connection: "Connection | AsyncConnection",
    query: NumberedQuery,
    values: "Mapping[str, str | None]",
) -> "PQGen[list[list[bytes | None]]]":
    """Run a statement; to be given to the connection's `wait`, which returns the rows, as text.

    It is prepared, by a round trip of its own, once it was executed
    `PREPARE_AFTER` times, if the connection `prepares` at all. Not for use in a
    transaction. Raises the driver's exceptions.
    """
    try:
        return (yield from _exchange(connection, query, values))
    except errors.InvalidSqlStatementName:
        # Somebody sent DEALLOCATE ALL, or a pooler gave us a session that has not prepared it.
        # Nothing has run.
        connection.executions.pop(query.name)
        return (yield from _exchange(connection, query, values))


def _exchange(
    connection: "Connection | AsyncConnection",
    query: NumberedQuery,
    values: "Mapping[str, str | None]",
) -> "PQGen[list[list[bytes | None]]]":
    pgconn = connection.pgconn
    encoding = connection.encoding
    given = [None if (v := values[n]) is None else v.encode(encoding) for n in query.parameters]
    times = connection.executions.get(query.name, 0)
    if times < PREPARE_AFTER or not connection.prepares:
        pgconn.send_query_params(query.text, given)
    else:
        if times == PREPARE_AFTER:
            yield from _prepare(connection, query)
        pgconn.send_query_prepared(query.name, given)
    connection.executions[query.name] = times + 1
    result = yield from _result(connection, ExecStatus.TUPLES_OK)
    columns = range(result.nfields)
    return [[result.get_value(n, column) for column in columns] for n in range(result.ntuples)]


def _prepare(connection: "Connection | AsyncConnection", query: NumberedQuery) -> "PQGen[None]":
    connection.pgconn.send_prepare(query.name, query.text)
    # The name contains the text: a session of a pooler that has it has the same statement.
    with suppress(errors.DuplicatePreparedStatement):
        yield from _result(connection, ExecStatus.COMMAND_OK)


def _result(connection: "Connection | AsyncConnection", wanted: ExecStatus) -> "PQGen[PGresult]":
    pgconn = connection.pgconn
    if pgconn.flush():  # seldom: libpq has tried at once
        yield from generators.send(pgconn)
    results: list[PGresult] = yield from generators.fetch_many(pgconn)
    for result in results:
        if result.status != wanted:
            raise errors.error_from_result(result, connection.encoding)
    return results[-1]
