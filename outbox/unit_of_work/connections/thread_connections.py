"""Connections for threads, and the loop that performs a program in a thread."""

import _thread
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, TypeVar

from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.fork import held_forks
from dsql_outbox.outbox.unit_of_work.loops import do, perform
from dsql_outbox.outbox.unit_of_work.primitives import Open, Primitive, Program, Sleep

from .lender import Lender, require_time, seconds_left
from .shelf import Opening, Shelf, Waiter

T = TypeVar("T")

_SLICE: Final = 0.5
"""Seconds after which a waiting thread looks again.

A lost connection wakes no thread, and neither does a thread that was interrupted while it
woke another.
"""


class Connections(Lender[Connection]):
    """Connections for threads. Each opening has a thread of its own."""

    def perform(self, program: Program[T]) -> T:
        """Perform a program in this thread. Return its result, or raise its exception."""
        return perform(program, self._act)

    def take(self, *, fresh: bool, deadline: float | None, role_path: bool = False) -> Connection:
        """Return a kept connection or a new one, or only one that was never used if `fresh`.

        `deadline` is a time of the monotonic clock. With `role_path` the session has the
        search path of its role, for SQL of the caller. Raises the driver's
        `OperationalError` if no connection is available before the deadline.
        """
        require_time(deadline)
        turn = threading.Lock()
        turn.acquire()
        waiter: Waiter[Connection] = Waiter(
            turn.release, fresh=fresh, role_path=role_path, deadline=deadline
        )
        try:
            self._ask(waiter)
            while not (waiter.is_answered or _is_over(deadline)):
                left = seconds_left(deadline)
                if not turn.acquire(timeout=_SLICE if left is None else min(left, _SLICE)):
                    self._serve()
            return self._answer(waiter, deadline)
        except BaseException:
            self._leave(waiter)
            raise

    def _act(self, primitive: Primitive) -> Any:
        if isinstance(primitive, Open):
            fresh, role_path = primitive.fresh, primitive.role_path
            return self.take(fresh=fresh, deadline=primitive.deadline, role_path=role_path)
        if isinstance(primitive, Sleep) and primitive.meanwhile is not None:
            with self._open_meanwhile(primitive.meanwhile):
                return do(primitive)
        return do(primitive)

    def _start(self, opening: Opening) -> None:
        shelf = self._shelf
        self.run_beside(lambda: self._open(shelf, opening), "connection")

    def run_beside(self, work: Callable[[], None], name: str) -> None:
        """Do some work in a thread of its own, or here if no thread can be started."""
        try:
            _thread.start_new_thread(self._start_thread, (work, name))
        except RuntimeError:  # as Python ends, or at the limit of threads
            work()

    def _start_thread(self, work: Callable[[], None], name: str) -> None:
        """Start the thread of some work, beside the call that wants it.

        `Thread.start` waits for the new thread. Until that runs, CPython 3.11 takes it for the
        one that started it. An exception set for a thread, such as a time limit, would end the
        new thread then, and the call would wait without a limit.
        """
        thread = threading.Thread(
            target=self._work_and_end,
            args=(work,),
            name=f"{name} of a dsql_outbox {self._owner}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:
            self._work_and_end(work)

    def _work_and_end(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            held_forks.thread_ends()

    def _open(self, shelf: Shelf[Connection], opening: Opening) -> None:
        opening.has_begun = True
        try:
            connection = self._database.connect(
                role_path=opening.role_path, abandoned=opening.abandoned
            )
        except BaseException as error:  # noqa: BLE001 - a call that waits gets it
            shelf.fail_opening(opening, error)
        else:
            shelf.finish_opening(opening, connection)
        self._serve()

    def _abandon(self, opening: Opening) -> None:
        opening.abandoned.set()


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline
