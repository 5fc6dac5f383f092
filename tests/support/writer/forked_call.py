"""A call in a forked child, for the schedules: its outcomes come back through a pipe."""

import copyreg
import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from dsql_outbox.outbox import DuplicateEvent, StaleVersion

from .checked_tables import Outcome

_LIMIT = 60
"""Seconds; then the child is killed, and the parent says so."""


def in_child(call: Callable[[], list[Outcome]]) -> list[Outcome]:
    """Run `call` in a child, which has the objects of this process and none of its threads."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _run(call, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"the forked child ended with status {status}")
    found: list[Outcome] = pickle.loads(told)
    return found


def _run(call: Callable[[], list[Outcome]], writing: int) -> None:
    status = 1
    try:
        signal.alarm(_LIMIT)
        # The sockets of a proxy in this process too: what it closes must be closed.
        os.dup2(writing, 3)
        os.closerange(4, 1024)
        _be_silent()
        with os.fdopen(3, "wb") as pipe:
            pickle.dump(call(), pipe)
        status = 0
    finally:
        os._exit(status)


def _be_silent() -> None:
    """Leave the streams of the parent alone.

    Another thread of the parent may have held the lock of a stream's buffer at the fork.
    Python renews no such lock in a child: a write to the stream would wait for ever.
    """
    logging.disable()
    sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good


def _duplicate(event_id: object, same_content: object) -> DuplicateEvent:
    return DuplicateEvent(event_id, same_content=same_content)  # type: ignore[arg-type]


def _stale(event_id: object, expected: object, actual: object) -> StaleVersion:
    return StaleVersion(event_id, expected=expected, actual=actual)  # type: ignore[arg-type]


def _reduce_duplicate(error: DuplicateEvent) -> tuple[object, tuple[object, ...]]:
    return _duplicate, (error.event_id, error.same_content)


def _reduce_stale(error: StaleVersion) -> tuple[object, tuple[object, ...]]:
    return _stale, (error.event_id, error.expected, error.actual)


copyreg.pickle(DuplicateEvent, _reduce_duplicate)  # type: ignore[arg-type]
copyreg.pickle(StaleVersion, _reduce_stale)  # type: ignore[arg-type]
