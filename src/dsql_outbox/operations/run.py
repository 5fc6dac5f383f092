"""A run of a verb: what `forget`, `erase`, `replay`, `verify` and the others return.

A run says how far it is, keeps to a rate, stops when it is asked to, and says how another one goes
on. `pages` has the loop of those that change rows: read a page, take of it as much as fits one
transaction, rest as the rate asks, change it in a transaction that proves the fence, and report.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing
from math import inf
from time import monotonic
from typing import Any, Generic, Protocol, Self, TypeVar

import anyio
import msgspec

from .pace import Pace

P = TypeVar("P", bound=msgspec.Struct)
T = TypeVar("T")


class Fence(Protocol):
    """What keeps two runs from doing the same work.

    Each transaction of a run proves it. It is kept for `lease` seconds after the last proof.
    """

    @property
    def lease(self) -> float:
        """Seconds; infinite if nothing need be kept."""
        ...

    async def renew(self) -> None:
        """Keep it for `lease` seconds from now. Raises an error if another run has it."""
        ...


class RowFence:
    """The fence of a run that needs no lease: its rows must change.

    `SessionTransaction.change` is the proof. It raises `Moved` if another run has changed one of
    them, so that the transaction runs again with what is there now. A run that only reads has this
    fence, too.
    """

    lease = inf

    async def renew(self) -> None:
        """Do nothing."""


class Run(ABC, Generic[P, T]):
    """A run of a verb: iterate over it to do its work.

    It yields what its verb tells after each transaction. `await` it to do all of the work, and get
    the progress in the end. Close a run that is left early. `stop` ends it before the next
    transaction; then `again` says how another run goes on.
    """

    def __init__(self, progress: P, pace: Pace | None = None) -> None:
        self.progress = progress
        """How far the run is: the counts."""
        self.pace = pace or Pace()
        self._stopping = anyio.Event()
        self._has_ended = False
        self._steps = self._work()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await anext(self._steps)
        except StopAsyncIteration:
            self._has_ended = True
            raise

    def __await__(self) -> Generator[Any, Any, P]:
        return self._complete().__await__()

    async def _complete(self) -> P:
        async with aclosing(self):
            async for _ in self:
                pass
        return self.progress

    async def aclose(self) -> None:
        """End the run; the transaction in progress is rolled back."""
        await self._steps.aclose()

    def stop(self) -> None:
        """End the run after the transaction in progress; it may be called several times."""
        self._stopping.set()

    def count(self, **more: int) -> None:
        """Add to counts of the progress."""
        self.note(**{name: getattr(self.progress, name) + n for name, n in more.items()})

    def note(self, **fields: object) -> None:
        """Replace fields of the progress."""
        self.progress = msgspec.structs.replace(self.progress, **fields)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    @property
    def again(self) -> Mapping[str, str] | None:
        """The arguments to add to the same call, so that it goes on; None when all is done."""
        return None if self._has_ended and not self.is_stopping else {}

    async def rest(self, fence: Fence) -> bool:
        """Wait as the rate asks, and keep the fence. Returns whether the run goes on."""
        while (wait := self.pace.wait(monotonic())) > 0 and not self.is_stopping:
            await self.pause(min(wait, fence.lease / 3))
            await fence.renew()
        return not self.is_stopping

    async def pause(self, seconds: float) -> None:
        """Wait, until `stop` is called at the latest."""
        with anyio.move_on_after(seconds):
            await self._stopping.wait()

    async def one_by_one(self, *parts: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """What one part tells after the other. None begins after a stop."""
        for part in parts:
            if self.is_stopping:
                return
            async with aclosing(part):
                async for each in part:
                    yield each

    @abstractmethod
    def _work(self) -> AsyncGenerator[T]:
        """Do the work. Called by the constructor: what it needs is set before."""
