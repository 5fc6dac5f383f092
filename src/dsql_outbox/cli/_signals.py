"""Ctrl-C and SIGTERM: first finish what is in hand, then stop at once."""

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import click
from anyio.abc import TaskStatus

_SHELL_BASE = 128  # a shell reports death by signal N as 128 + N


class Interruption:
    """What signals have asked for so far.

    The first SIGINT or SIGTERM asks `stop` to end the work in order. A SIGINT
    after that cancels the work. A second SIGTERM changes nothing: supervisors
    and wrappers may send several.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self.first: signal.Signals | None = None
        self.at_once = False

    @property
    def exit_code(self) -> int:
        """As a shell shows it: 130 after SIGINT, 143 after SIGTERM, 0 without a signal."""
        return _SHELL_BASE + self.first if self.first else 0

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work while listening to signals; raises what the work raises."""
        failure: Exception | None = None
        async with anyio.create_task_group() as group:
            await group.start(self._listen, group.cancel_scope)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - the group would wrap it in another
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _listen(self, scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            task_status.started()
            async for found in received:
                if self.first is None:
                    self.first = found
                    self._stop()
                    with suppress(OSError):
                        click.echo("finishing what is in hand; Ctrl-C stops at once", err=True)
                elif found == signal.SIGINT:
                    self.at_once = True
                    scope.cancel()
                    return
