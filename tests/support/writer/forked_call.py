"""A call in a forked child, for the schedules: its outcomes come back through a pipe."""

import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path

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
