"""Distinguish an error of a call from an interrupt: cancellation, or a raising signal handler.

A handler may raise at any point of the main thread. An example is the time limit of a Celery
worker. No retry may swallow that exception, even if it is an `OSError` such as
`TimeoutError`.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from functools import partial
from traceback import walk_tb
from types import CodeType
from typing import Any


def is_interrupt(error: BaseException) -> bool:
    """Return whether the error came from outside of the call that it ended."""
    return not isinstance(error, Exception) or comes_from_handler(error)


def is_being_cancelled() -> bool:
    """Return whether somebody asks the current task to end.

    Without, a `CancelledError` is that of something which the task awaited, such as a task of a
    client whose pool was closed. It must end neither this task nor, silently, its task group.
    """
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def comes_from_handler(error: BaseException) -> bool:
    """Return whether a signal handler that is written in Python raised the error."""
    handlers = set(_handlers())
    return any(frame.f_code in handlers for frame, _ in walk_tb(error.__traceback__))


def _handlers() -> Iterator[CodeType]:
    """Yield the code of each signal handler that is written in Python."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        if callable(handler) and (code := _code_of(handler)) is not None:
            yield code


def _code_of(handler: Callable[..., Any]) -> CodeType | None:
    while isinstance(handler, partial):
        handler = handler.func
    for found in (handler, getattr(handler, "__func__", None), type(handler).__call__):
        if isinstance(code := getattr(found, "__code__", None), CodeType):
            return code
    return None
