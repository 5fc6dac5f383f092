"""Run statements through libpq without a cursor of psycopg.

For every execution, a cursor looks up how to adapt each value and each column. That is about
half of the CPU time that a write costs its process (docs/performance.md). A write needs no
adaptation: its values and its answer are text. `exchange` runs one statement, `pipeline`
several in one round trip. Both return a generator for the `wait` of a connection, so they
serve threads and tasks.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec
import psycopg
from psycopg import errors, generators
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, TransactionStatus

from dsql_outbox.outbox.failure import NotPrepared, is_outdated_plan

from .address import CLIENT_ENCODING

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult

    from .connection import AsyncConnection, Connection

PREPARE_AFTER: Final = 5
"""Executions on one connection before a statement is prepared, psycopg's own default."""

_PREPARED: Final = PREPARE_AFTER + 1
"""The executions of a statement that is prepared, however many it has had."""

_NEVER: Final = -(1 << 62)
"""The executions of a statement that is not prepared on this connection any more."""

_HASH_DIGITS: Final = 16

_PARAMETER: Final = re.compile(rb"%\((\w+)\)s")

Values = Sequence[bytes | None]
"""The parameters of a statement in the order of their numbers, as encoded text."""

_LOST: Final = (errors.InvalidSqlStatementName, errors.FeatureNotSupported)
"""The errors of a prepared statement that may be lost; see `_forget`."""

_Command = Callable[[], None]

Rows = list[list[bytes | None]]
"""Rows of an answer, as the server's text."""


class NumberedQuery(msgspec.Struct, frozen=True):
    """A statement with named parameters, and with the server's numbered ones.

    `query` has ``%(name)s`` and `text` has ``$1``. `parameters` are the names in the
    order of the numbers. `name` is the name of the prepared statement. It contains a
    hash of `text`, because behind a transaction pooler other clients prepare their
    statements in the same session. Without a name it is never prepared.
    """

    name: bytes
    query: bytes
    text: bytes
    parameters: tuple[str, ...]

    def encode(self, values: Mapping[str, str | None], encoding: str = CLIENT_ENCODING) -> Values:
        """Return the values as `exchange` and `pipeline` send them."""
        given = map(values.__getitem__, self.parameters)
        return [None if value is None else value.encode(encoding) for value in given]


Statements = Sequence[tuple[NumberedQuery, Mapping[str, str | None]]]
"""Statements with their parameters, in the order in which they are sent."""

Row = Sequence[Any]
"""A row of an answer, with the values as the driver reads them."""


def numbered(name: str, query: bytes) -> NumberedQuery:
    """Replace psycopg's ``%(name)s`` by the server's ``$1``, ``$2`` and so on."""
    names = list(dict.fromkeys(found.decode() for found in _PARAMETER.findall(query)))
    places = {each.encode(): b"$%d" % n for n, each in enumerate(names, start=1)}
    text = _PARAMETER.sub(lambda found: places[found[1]], query).replace(b"%%", b"%")
    unique = f"{name}_{sha256(text).hexdigest()[:_HASH_DIGITS]}"
    return NumberedQuery(unique.encode(), query, text, tuple(names))


def unprepared(text: bytes) -> NumberedQuery:
    """Return a statement without parameters that is never prepared, such as BEGIN."""
    return NumberedQuery(b"", text, text, ())


def _wait() -> None:
    """Do nothing while the server works."""


def exchange(
    connection: "Connection | AsyncConnection",
    query: NumberedQuery,
    values: Values,
    meanwhile: Callable[[], None] = _wait,
) -> "PQGen[PGresult]":
    """Return a generator for the connection's `wait`, which returns the result, with rows.

    `meanwhile` is called once the statement is sent, while the server works on it.
    After `PREPARE_AFTER` executions the statement is due: the next exchange outside of a
    transaction prepares it, in one more round trip, if the connection `prepares`. If the session
    has lost it, its text is sent. Inside a transaction that error has aborted it, and is raised as
    `NotPrepared`.
    Raises the driver's exceptions.
    """
    is_inside = _is_inside(connection)
    yield from prepare_due(connection)
    try:
        return (yield from _exchange(connection, query, values, meanwhile))
    except _LOST as error:
        _forget(connection, [query], error, is_inside=is_inside)
        return (yield from _exchange(connection, query, values, meanwhile))


def prepare_due(connection: "Connection | AsyncConnection") -> "PQGen[None]":
    """Prepare what is due, unless a transaction is open.

    Behind a pooler the session may have it, and that error would abort the transaction. Each
    takes its own round trip: of a pipeline with more than one Sync, a pooler may give the parts to
    different sessions.
    """
    while connection.due and not _is_inside(connection):
        name, text = connection.due.popitem()
        connection.pgconn.send_prepare(name, text)
        # The name contains a hash of the text, so an existing statement of this name is the same.
        with suppress(errors.DuplicatePreparedStatement):
            yield from _result(connection, ExecStatus.COMMAND_OK)
        connection.executions[name] = _PREPARED


def answer(connection: "Connection | AsyncConnection") -> "PQGen[PGresult]":
    """Return a generator for the answer to the statement of `send`. Raises its error."""
    return (yield from _result(connection, ExecStatus.TUPLES_OK))


def pipeline(
    connection: "Connection | AsyncConnection", statements: Sequence[tuple[NumberedQuery, Values]]
) -> "PQGen[list[PGresult]]":
    """Return a generator for the connection's `wait`, which returns one result per statement.

    The statements take one round trip. They run in the implicit transaction of a pipeline, so
    their own transaction begins with BEGIN and ends with COMMIT. They are prepared as by
    `exchange`. Raises the error of the first statement that failed.
    """
    is_inside = _is_inside(connection)
    yield from prepare_due(connection)
    try:
        return (yield from _pipeline(connection, statements))
    except _LOST as error:
        _forget(connection, [query for query, _ in statements], error, is_inside=is_inside)
        if connection.pgconn.transaction_status == TransactionStatus.INERROR:
            yield from command(connection, b"ROLLBACK")
        return (yield from _pipeline(connection, statements))


def pipeline_inside(
    connection: "psycopg.BaseConnection[Any]", statements: Sequence[tuple[NumberedQuery, Values]]
) -> "PQGen[list[PGresult]]":
    """Run statements in the transaction of any psycopg connection, as `pipeline` does.

    As a cursor does, it begins the transaction of a connection without autocommit. No
    statement is prepared.
    """
    yield from connection._start_query()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    pgconn = connection.pgconn
    sends = [partial(pgconn.send_query_params, q.text, values) for q, values in statements]
    groups = yield from _groups(pgconn, [*sends, pgconn.pipeline_sync])
    return _results_of(groups[:-1], connection.info.encoding)


def command(connection: "psycopg.BaseConnection[Any]", text: bytes) -> "PQGen[str | None]":
    """Return a generator that runs a statement without rows, and returns its command tag."""
    connection.pgconn.send_query(text)
    result = yield from _result(connection, ExecStatus.COMMAND_OK)
    return tag_of(result)


def commands(
    connection: "psycopg.BaseConnection[Any]", texts: Sequence[bytes]
) -> "PQGen[str | None]":
    """Return a generator that runs statements in one text, and returns the tag of the last one."""
    for result in (results := (yield from script(connection, b"; ".join(texts)))):
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, connection.info.encoding)
    return tag_of(results[-1])


def script(connection: "psycopg.BaseConnection[Any]", text: bytes) -> "PQGen[list[PGresult]]":
    """Return a generator that runs several statements in one simple query.

    It returns the results up to the first error, which the server answers in place of the rest.
    """
    connection.pgconn.send_query(text)
    return (yield from _fetch(connection.pgconn, _wait))


def with_literals(query: bytes, values: Mapping[str, str]) -> bytes:
    """Put each value in the place of its ``%(name)s``, for a statement in a `script`."""
    return _PARAMETER.sub(lambda found: _literal(values[found[1].decode()]), query)


def _literal(text: str) -> bytes:
    """Return a literal in ASCII, which a session reads alike whatever its settings are."""
    plain = text.replace("\\", r"\\").replace("'", "''")
    if not plain.isascii():
        plain = "".join(each if each.isascii() else f"\\U{ord(each):08x}" for each in plain)
    return b"E'%s'" % plain.encode("ascii")


def encoding_of(connection: "psycopg.BaseConnection[Any]") -> str:
    """Return the encoding in which psycopg sends texts: UTF-8 to a session with SQL_ASCII."""
    found = connection.info.encoding
    return CLIENT_ENCODING if found == "ascii" else found


def loaded_rows(
    connection: "psycopg.BaseConnection[Any]", result: "PGresult"
) -> list[tuple[Any, ...]]:
    """Return the rows of a result as a cursor of the connection does."""
    transformer = Transformer(connection)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


def rows_of(result: "PGresult") -> Rows:
    """Return the rows of a result as text."""
    columns = range(result.nfields)
    return [[result.get_value(n, column) for column in columns] for n in range(result.ntuples)]


def tag_of(result: "PGresult") -> str | None:
    """Return the command tag of a result, such as COMMIT."""
    tag = result.command_status
    return None if tag is None else tag.decode()


def _exchange(
    connection: "Connection | AsyncConnection",
    query: NumberedQuery,
    values: Values,
    meanwhile: Callable[[], None],
) -> "PQGen[PGresult]":
    _command_to_send(connection, query, values)()
    return (yield from _result(connection, ExecStatus.TUPLES_OK, meanwhile))


def _forget(
    connection: "Connection | AsyncConnection",
    queries: Sequence[NumberedQuery],
    error: psycopg.Error,
    *,
    is_inside: bool,
) -> None:
    """Let the text of these statements be sent next, or raise the error if that cannot help.

    Nothing has run, so they may be sent again. Either a client sent DEALLOCATE ALL, or a pooler
    assigned a session that has not prepared them. Or a table has changed, and so has the type
    of a column that a prepared one returns: the server holds to the type of its first plan.
    Inside a transaction they may be sent in the next one.
    """
    is_outdated = is_outdated_plan(error)
    if not is_outdated and not isinstance(error, errors.InvalidSqlStatementName):
        raise error
    was_prepared = any(connection.executions.get(each.name) == _PREPARED for each in queries)
    for query in queries:
        connection.executions[query.name] = _NEVER if is_outdated else 0
    if is_inside:
        if not was_prepared:  # it is the error of something that the statement itself runs
            raise error
        raise NotPrepared(str(error)) from error


def _is_inside(connection: "Connection | AsyncConnection") -> bool:
    return connection.pgconn.transaction_status != TransactionStatus.IDLE


def _command_to_send(
    connection: "Connection | AsyncConnection", query: NumberedQuery, values: Values
) -> _Command:
    """Return the command that sends the statement, by its name if it is prepared."""
    times = connection.executions.get(query.name, 0)
    if times < PREPARE_AFTER:
        times = connection.executions[query.name] = times + 1
        if times == PREPARE_AFTER and connection.prepares and query.name:
            connection.due[query.name] = query.text
    elif times == _PREPARED and connection.prepares:
        return partial(connection.pgconn.send_query_prepared, query.name, values)
    return partial(connection.pgconn.send_query_params, query.text, values)


def _result(
    connection: "psycopg.BaseConnection[Any]",
    wanted: ExecStatus,
    meanwhile: Callable[[], None] = _wait,
) -> "PQGen[PGresult]":
    results = yield from _fetch(connection.pgconn, meanwhile)
    for result in results:
        if result.status != wanted:
            raise errors.error_from_result(result, connection.info.encoding)
    return results[-1]


def _fetch(pgconn: "PGconn", meanwhile: Callable[[], None]) -> "PQGen[list[PGresult]]":
    if pgconn.flush():  # rare: libpq already tried to send everything
        yield from generators.send(pgconn)
    meanwhile()
    results: list[PGresult] = yield from generators.fetch_many(pgconn)
    return results


def _pipeline(
    connection: "Connection | AsyncConnection", statements: Sequence[tuple[NumberedQuery, Values]]
) -> "PQGen[list[PGresult]]":
    sends = [_command_to_send(connection, query, values) for query, values in statements]
    groups = yield from _groups(connection.pgconn, [*sends, connection.pgconn.pipeline_sync])
    return _results_of(groups[:-1], connection.info.encoding)


def _groups(pgconn: "PGconn", commands: "Sequence[_Command]") -> "PQGen[list[list[PGresult]]]":
    """Send commands in pipeline mode, and return the results of each.

    After an exception the connection stays in pipeline mode, and is of no more use.
    """
    pgconn.enter_pipeline_mode()
    groups: list[list[PGresult]] = yield from generators.pipeline_communicate(
        pgconn, deque(commands)
    )
    while len(groups) < len(commands):
        groups.append((yield from generators.fetch_many(pgconn)))
    pgconn.exit_pipeline_mode()
    return groups


def _results_of(groups: "Sequence[Sequence[PGresult]]", encoding: str) -> "list[PGresult]":
    results = [result for group in groups for result in group]
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result, encoding)
    return results
