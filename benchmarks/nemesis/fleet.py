"""The publishers as processes: start, supervise, harm and end them."""

import asyncio
import signal
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from time import time
from types import MappingProxyType

_STOP = 30.0  # seconds that a publisher may take to end after SIGTERM
_RESTART = 0.5  # seconds before a publisher that ended by itself is restarted
_LOOK = 0.05  # seconds between two checks of a state
_READY = 15.0  # seconds that a rolling restart waits for a new publisher's first line


def cancel_on_sigterm() -> None:
    """Let SIGTERM cancel the running task, so that it ends the processes that it started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


async def until(state: Callable[[], bool]) -> None:
    """Poll until `state` is true; it depends on another process, which sends no signal."""
    while not state():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(_LOOK)


class CannotRun(Exception):
    """The publisher's command fails at the start, so there is nothing to harm."""


class Member:
    """One publisher; each start makes a new process."""

    def __init__(self, command: Sequence[str], log: Path, target: str) -> None:
        self._command = command
        self.target = target
        self._log = log
        self._process: Process | None = None
        self._log_start = 0
        self.stopped = False
        """Whether SIGSTOP has stopped it."""
        self.wanted = True
        """Whether the supervisor should restart it; false while it is being harmed."""

    @property
    def runs(self) -> bool:
        """Whether its process runs and is not stopped."""
        process = self._process
        return process is not None and process.returncode is None and not self.stopped

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last process; None while it runs."""
        return None if self._process is None else self._process.returncode

    @property
    def pid(self) -> int:
        """The id of the last process; 0 before the first."""
        return 0 if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start a new process."""
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            # In its own session, so that Ctrl-C reaches only the nemesis, which ends it.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=DEVNULL, stdout=DEVNULL, stderr=log, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal; do nothing when there is no process."""
        self.stopped = number == signal.SIGSTOP
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self) -> bool:
        """Send SIGTERM and wait; kill it after 30 s and return False."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        if self._process is None:
            return True
        try:
            await asyncio.wait_for(self._process.wait(), _STOP)
        except TimeoutError:
            await self.kill()
            return False
        return True

    async def kill(self) -> None:
        """Send SIGKILL and wait."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def ready(self) -> None:
        """Wait until it logs that it relays, or ends; for 15 s at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY):
                await until(lambda: self.exit_code is not None or "relaying" in self.said())

    def said(self) -> str:
        """The log of the last process so far."""
        return self._log.read_bytes()[self._log_start :].decode().strip()


class Fleet:
    """All publishers of a run."""

    def __init__(
        self,
        number: int,
        pythons: Sequence[str],
        words: Sequence[str],
        logs: Path,
        others: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Make `number` publishers for the default target, and as many for each of `others`."""
        self.members = [
            Member(
                [python, "-m", "dsql_outbox", "publish", *words],
                logs / f"publisher-{target}-{n}.log",
                target,
            )
            for target, words in {"default": words, **others}.items()
            for n, python in zip(range(number), cycle(pythons), strict=False)
        ]
        self.ended: Counter[int] = Counter()
        """The exit codes of publishers that ended by themselves."""
        self.too_slow = 0
        """How many publishers did not end within 30 s after SIGTERM."""

    async def start(self) -> None:
        """Start all. Raises `CannotRun` if one ends immediately, as for an unknown option."""
        for member in self.members:
            await member.start()
        for member in self.members:
            await member.ready()
            if member.exit_code is not None:
                raise CannotRun(f"a publisher ended with code {member.exit_code}: {member.said()}")

    async def watch(self) -> None:
        """Restart publishers that end by themselves; never returns."""
        while True:
            await asyncio.sleep(_RESTART)
            for member in self.members:
                if member.wanted and member.exit_code is not None:
                    self.ended[member.exit_code] += 1
                    await member.start()

    async def kill_one(self, member: Member, away: float) -> None:
        """Send SIGKILL, and restart it `away` seconds later."""
        await self._harm(member, member.kill, away)

    async def restart_one(self, member: Member) -> None:
        """Send SIGTERM, and restart it once it has ended."""
        await self._harm(member, lambda: self._end(member), 0.0)

    async def stop_one(self, member: Member, seconds: float) -> None:
        """Send SIGSTOP, and SIGCONT after `seconds`; the process does not know that it stopped."""
        member.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        member.send(signal.SIGCONT)

    async def rolling_restart(self, settle: float) -> list[float]:
        """Restart all one after the other, `settle` seconds apart.

        Returns the time at which each restart began, in seconds since the epoch.
        """
        began: list[float] = []
        for member in self.members:
            began.append(time())
            await self.restart_one(member)
            await member.ready()
            await asyncio.sleep(settle)
        return began

    async def end(self) -> None:
        """End all in order; count and kill a process that does not end in time."""
        for member in self.members:
            member.wanted = False
        await asyncio.gather(*(self._end(member) for member in self.members))

    async def kill(self) -> None:
        """Kill all processes."""
        for member in self.members:
            await member.kill()

    async def _end(self, member: Member) -> None:
        self.too_slow += not await member.end()

    async def _harm(self, member: Member, harm: Callable[[], Awaitable[None]], away: float) -> None:
        member.wanted = False
        await harm()
        await asyncio.sleep(away)
        await member.start()
        member.wanted = True
