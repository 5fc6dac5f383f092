"""Ctrl-C, SIGTERM, SIGHUP: the first lets the work in progress finish; then Ctrl-C ends it."""

import math
import signal
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import anyio
import click
from anyio.abc import TaskGroup, TaskStatus

from .logs import announce
from .output import say

_SHELL_BASE = 128  # a shell reports death by signal N as 128 + N


def ending_signals() -> tuple[signal.Signals, ...]:
    """The signals besides SIGINT that end a command in order: SIGTERM, and SIGHUP.

    A terminal that closes sends SIGHUP. If it is ignored, as under ``nohup``, it stays so.
    """
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM,) if is_ignored else (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible(advice: str | Callable[[], str]) -> Generator[None]:
    """End the block on a signal with a line of advice; also a decorator of commands.

    `dsql_outbox.__main__` raises `KeyboardInterrupt` on every signal that ends a command. The exit
    code is that of a shell, as in `Interruption.exit_code`. Leave the block of
    `progress` first: the line would be erased with it.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        say(f"stopped: {advice if isinstance(advice, str) else advice()}", err=True)
        number = next(iter(error.args), signal.SIGINT)
        raise click.exceptions.Exit(_SHELL_BASE + number) from None


READ_ONLY: Final = "nothing was changed"
"""The advice of a command that only reads."""


def going_on(more: Mapping[str, str]) -> str:
    """The advice of a command that continues where it was stopped, with these options added."""
    options = "".join(f" with --{name} {value}" for name, value in more.items())
    return f"run the same command{options} to continue"


GO_ON: Final = going_on({})
"""The advice of one that needs no option."""


class Interruption:
    """Runs work that signals can end.

    The first SIGINT, SIGTERM or SIGHUP calls `stop`, which must end the work in
    order within `limit` seconds. A later SIGINT, or the end of this time, cancels
    the work. A later SIGTERM or SIGHUP is ignored, because supervisors and wrappers
    may send several. `first` is the first signal; `at_once` and `overdue` say why the work
    was cancelled.
    """

    def __init__(self, stop: Callable[[], None], *, limit: float = math.inf) -> None:
        self._stop = stop
        self._limit = limit
        self.first: signal.Signals | None = None
        self.at_once = False
        self.overdue = False

    @property
    def exit_code(self) -> int:
        """The exit code of a shell: 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP.

        Without a signal it is 0.
        """
        return _SHELL_BASE + self.first if self.first else 0

    async def run(
        self, work: Callable[[], Awaitable[None]], *beside: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """Run `work` and listen for signals. Raises the errors of `work`.

        The functions in `beside` run next to it. They must not raise, and are
        cancelled when the work is done.
        """
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            await group.start(self._listen, group)
            for task in beside:
                group.start_soon(task)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - the group would wrap it in another
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _listen(self, group: TaskGroup, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, *ending_signals()) as received:
            task_status.started()
            async for found in received:
                if self.first is None:
                    self.first = found
                    self._stop()
                    group.start_soon(self._end_when_overdue, group.cancel_scope)
                    hint = "; Ctrl-C stops immediately" if found == signal.SIGINT else ""
                    announce(f"finishing the work in progress{hint}")
                elif found == signal.SIGINT:
                    self.at_once = True
                    group.cancel_scope.cancel()
                    return

    async def _end_when_overdue(self, scope: anyio.CancelScope) -> None:
        await anyio.sleep(self._limit)
        self.overdue = True
        scope.cancel()
