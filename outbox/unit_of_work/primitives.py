"""The primitives of a program: open, exchange, query, invoke, sleep and take a turn. No I/O.

A program is a generator that decides everything and does no I/O. It yields one primitive at
a time and receives its answer, or its exception. `Connections` performs it in a thread and
`AsyncConnections` in a task, so both share every program.
"""

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import msgspec

from .turns import Turn, Turns

T = TypeVar("T")


class Open(msgspec.Struct, frozen=True):
    """Take a connection, only a new one if `fresh`. The answer is the connection.

    `deadline` is a time of the monotonic clock. With `role_path` the session has the
    search path of its role, for SQL of the caller.
    """

    fresh: bool
    role_path: bool
    deadline: float | None


class Exchange(msgspec.Struct, frozen=True):
    """Run a generator of psycopg that talks to the server. The answer is its result.

    It runs a statement, or a pipeline of statements, in one round trip.
    """

    connection: Any  # of psycopg, for threads or for tasks; the program does not care
    run: Generator[Any, Any, Any]


class Query(msgspec.Struct, frozen=True):
    """Run a statement by a cursor of psycopg. The answer is its rows, as Python values.

    Outside autocommit psycopg begins a transaction first. Without `has_rows` the answer
    is empty.
    """

    connection: Any
    query: bytes
    parameters: Mapping[str, object] | None = None
    has_rows: bool = True


class Invoke(msgspec.Struct, frozen=True):
    """Call the function of a run with the connection that is lent to it. The answer is its result.

    For tasks it returns an awaitable of its result.
    """

    function: Callable[[Any], Any]
    handle: Any


class Sleep(msgspec.Struct, frozen=True):
    """Wait for `seconds`, and have this connection opened `meanwhile`. The answer is None."""

    seconds: float
    meanwhile: Open | None = None


class TakeTurn(msgspec.Struct, frozen=True):
    """Wait for a turn. The answer is whether it came before the deadline.

    `deadline` is a time of the monotonic clock. The turn must leave `turns` in any case.
    """

    turns: Turns
    turn: Turn
    deadline: float | None


Primitive = Open | Exchange | Query | Invoke | Sleep | TakeTurn
Program = Generator[Primitive, Any, T]
