"""Publishers as processes: started, watched as a supervisor does, harmed, ended."""

import asyncio
import shlex
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import time

_STOP = 30.0  # seconds that a publisher may take to end after SIGTERM
_RESTART = 0.5  # seconds before one that ended by itself is started anew
_LOOK = 0.05  # seconds between looks at a state
_READY = 15.0  # seconds that a rolling restart waits for a new publisher's first line


async def until(state: Callable[[], bool]) -> None:
    """Wait for a state of another process, which tells nobody when it is there."""
    while not state():  # noqa: ASYNC110 - so there is nothing to wait for but time
        await asyncio.sleep(_LOOK)


class CannotRun(Exception):  # noqa: N818 - reads as what happened
    """The publisher's command does not work, so there is nothing to harm."""


class Member:
    """One publisher; each time it is started, it is a new process."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = command
        self._log = log
        self._process: Process | None = None
        self._log_start = 0
        self.stopped = False
        """Whether SIGSTOP holds it."""
        self.wanted = True
        """Whether it should run: not while it is being harmed."""

    @property
    def runs(self) -> bool:
        """Whether it can relay."""
        process = self._process
        return process is not None and process.returncode is None and not self.stopped

    @property
    def exit_code(self) -> int | None:
        """How the last process ended; None while it runs."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start a new process."""
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            # In a group of its own: a Ctrl-C is for the nemesis, which then ends them all.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=DEVNULL, stdout=DEVNULL, stderr=log, start_new_session=True
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal; quiet when there is no process."""
        self.stopped = number == signal.SIGSTOP
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def end(self) -> bool:
        """SIGTERM and wait; False if it had to be killed."""
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
        """SIGKILL and wait."""
        self.send(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def ready(self) -> None:
        """Wait for the first line that a new publisher prints, which says that it relays."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY):
                await until(lambda: self.exit_code is not None or "relaying" in self.said())

    def said(self) -> str:
        """What the last process has printed so far."""
        return self._log.read_bytes()[self._log_start :].decode().strip()


class Fleet:
    """All publishers of a run."""

    def __init__(self, number: int, database: str, sink: str, options: str, logs: Path) -> None:
        words = ["publish", "--database", database, "--sink", sink, *shlex.split(options)]
        command = [sys.executable, "-m", "dsql_outbox", *words]
        self.members = [Member(command, logs / f"publisher-{n}.log") for n in range(number)]
        self.ended: Counter[int] = Counter()
        """Exit codes of those that ended by themselves."""
        self.too_slow = 0
        """Those that did not end within 30 s after SIGTERM."""

    async def start(self) -> None:
        """Start all; raises `CannotRun` if one ends at once, as with an unknown option."""
        for member in self.members:
            await member.start()
        for member in self.members:
            await member.ready()
            if member.exit_code is not None:
                raise CannotRun(f"a publisher ended with code {member.exit_code}: {member.said()}")

    async def watch(self) -> None:
        """Start anew what ends by itself; never returns."""
        while True:
            await asyncio.sleep(_RESTART)
            for member in self.members:
                if member.wanted and member.exit_code is not None:
                    self.ended[member.exit_code] += 1
                    await member.start()

    async def kill_one(self, member: Member, away: float) -> None:
        """SIGKILL it, and start it anew `away` seconds later."""
        await self._harm(member, member.kill, away)

    async def restart_one(self, member: Member) -> None:
        """SIGTERM it, and start it anew once it has ended."""
        await self._harm(member, lambda: self._end(member), 0.0)

    async def stop_one(self, member: Member, seconds: float) -> None:
        """SIGSTOP it, and let it go on later as if nothing had been."""
        member.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        member.send(signal.SIGCONT)

    async def rolling_restart(self, settle: float) -> list[float]:
        """Restart one after the other, `settle` seconds apart; when each began."""
        began: list[float] = []
        for member in self.members:
            began.append(time())
            await self.restart_one(member)
            await member.ready()
            await asyncio.sleep(settle)
        return began

    async def end(self) -> None:
        """End all in order; a process that does not end in time is counted and killed."""
        for member in self.members:
            member.wanted = False
        await asyncio.gather(*(self._end(member) for member in self.members))

    async def kill(self) -> None:
        """Leave no process behind."""
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
