"""Faults of the writes of this process: conflicts, refusals, answers that are lost."""

import threading
from collections import deque
from typing import Final, Self

import psycopg

from dsql_outbox.outbox.unit_of_work import faults

_CONFLICT: Final = "change conflicts with another transaction, please retry: (OC000)"


class Faults:
    """Makes the next writes of this process fail, as a context manager.

    A write is a transaction of a writer, a COMMIT of `transact`, or one of an inbox's `once`, on
    any database and in any session. `append_to` sends no COMMIT, so it meets none. Each fault
    affects one write, in the order in which they were asked for. Only one `Faults` is active at
    a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refusals: deque[psycopg.Error] = deque()
        self._lost = 0

    def conflicts(self, count: int = 1) -> None:
        """Refuse the next `count` writes with a conflict as on Aurora DSQL: 40001, OC000."""
        self.refuse(count)

    def refuse(self, count: int = 1, *, sqlstate: str = "40001", message: str = _CONFLICT) -> None:
        """Refuse the next `count` writes with this error. Their transactions are rolled back.

        Raises `KeyError` for an SQLSTATE that psycopg does not know.
        """
        error = psycopg.errors.lookup(sqlstate)
        with self._lock:
            self._refusals.extend(error(message) for _ in range(count))

    def lost_commit(self, count: int = 1) -> None:
        """Let the next `count` writes that are not refused commit, and lose their answers."""
        with self._lock:
            self._lost += count

    def before_sending(self) -> None:
        """Raise the next refusal, if there is one."""
        with self._lock:
            if not self._refusals:
                return
            error = self._refusals.popleft()
        raise error

    def after_answer(self) -> None:
        """Raise the error of a lost connection, if an answer is to be lost."""
        with self._lock:
            if not self._lost:
                return
            self._lost -= 1
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def __enter__(self) -> Self:
        if faults.active is not None:
            raise RuntimeError("another Faults is active: leave its block first")
        faults.active = self
        return self

    def __exit__(self, *_: object) -> None:
        faults.active = None
