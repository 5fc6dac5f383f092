"""A run of a job: iterate over it to do its work."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from typing import Generic, Self, TypeVar

import anyio

P = TypeVar("P")


class LifeRun(ABC, Generic[P]):
    """A run of a job that changes stored events.

    It yields its progress after each transaction. Close a run that is left early. `stop` ends it
    before the next transaction. Another run goes on where it ended.
    """

    def __init__(self, progress: P) -> None:
        self.progress = progress
        """How far the run is."""
        self._stopping = anyio.Event()
        self._steps = self._run()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> P:
        return await anext(self._steps)

    async def aclose(self) -> None:
        """End the run; the transaction in progress is rolled back."""
        await self._steps.aclose()

    def stop(self) -> None:
        """End the run after the transaction in progress."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    @abstractmethod
    def _run(self) -> AsyncGenerator[P]:
        """Do the work."""
