"""Acts: how the programs of an inbox reach the database, for threads and for tasks."""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")

Act = Callable[[], Any]
"""Does one thing: takes a connection, talks to the server, calls a function or waits.

For tasks it returns an awaitable of its answer.
"""

Program = Generator[Act, Any, T]
