"""Run a statement through libpq without a cursor of psycopg.

For every execution, a cursor looks up how to adapt each value and each column.
That is about half of the CPU time that a write costs its process
(docs/performance.md). A write needs no adaptation: its values and its answer
are text.
"""

import re
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import msgspec
from psycopg import errors, generators
from psycopg.pq import ExecStatus

from .target import CLIENT_ENCODING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

    from .connection import AsyncConnection, Connection

PREPARE_AFTER: Final = 5
"""Executions on one connection before a statement is prepared, psycopg's own default."""

_HASH_DIGITS: Final = 16

_PARAMETER: Final = re.compile(rb"%\((\w+)\)s")


class NumberedQuery(msgspec.Struct, frozen=True):
    """A statement with named parameters, and with the server's numbered ones.

    `query` has ``%(name)s`` and `text` has ``$1``. `parameters` are the names in the
    order of the numbers. `name` is the name of the prepared statement. It contains a
    hash of `text`, because behind a transaction pooler other clients prepare their
    statements in the same session.
    """

    name: bytes
    query: bytes
    text: bytes
    parameters: tuple[str, ...]


def numbered(name: str, query: bytes) -> NumberedQuery:
    """Replace psycopg's ``%(name)s`` by the server's ``$1``, ``$2`` and so on."""
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
    """Return a generator for the connection's `wait`, which returns the rows as text.

    The values are encoded by this call, so a text that has no UTF-8 form raises
    `UnicodeEncodeError` here, before the generator sends anything.

    After `PREPARE_AFTER` executions the statement is prepared, in one more round
    trip, if the connection `prepares`. Do not use it inside a transaction: if a
    pooler loses the prepared statement, the error would abort the transaction.
    The generator raises the driver's exceptions.
    """
    given = [
        None if (v := values[n]) is None else v.encode(CLIENT_ENCODING) for n in query.parameters
    ]
    return _exchange(connection, query, given)


def _exchange(
    connection: "Connection | AsyncConnection", query: NumberedQuery, given: list[bytes | None]
) -> "PQGen[list[list[bytes | None]]]":
    try:
        return (yield from _send(connection, query, given))
    except errors.InvalidSqlStatementName:
        # A client sent DEALLOCATE ALL, or a pooler assigned a session that has not prepared
        # the statement. Nothing has run, so it is safe to send it again.
        connection.executions.pop(query.name)
        return (yield from _send(connection, query, given))


def _send(
    connection: "Connection | AsyncConnection", query: NumberedQuery, given: list[bytes | None]
) -> "PQGen[list[list[bytes | None]]]":
    pgconn = connection.pgconn
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
    # The name contains a hash of the text, so an existing statement of this name is the same.
    with suppress(errors.DuplicatePreparedStatement):
        yield from _result(connection, ExecStatus.COMMAND_OK)


def _result(connection: "Connection | AsyncConnection", wanted: ExecStatus) -> "PQGen[PGresult]":
    pgconn = connection.pgconn
    if pgconn.flush():  # rare: libpq already tried to send everything
        yield from generators.send(pgconn)
    results: list[PGresult] = yield from generators.fetch_many(pgconn)
    for result in results:
        if result.status != wanted:
            raise errors.error_from_result(result, CLIENT_ENCODING)
    return results[-1]
