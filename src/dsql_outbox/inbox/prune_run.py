"""A pruning as a run, which an operator can watch, limit and stop."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from time import monotonic

from dsql_outbox.operations.pace import Pace
from dsql_outbox.operations.run import RowFence, Run
from dsql_outbox.outbox.unit_of_work.primitives import Program

from .pruning import Pruned, Pruning


class PruneRun(Run[Pruned, Pruned]):
    """A run of `AsyncInbox.prune`; it yields its progress after each page."""

    def __init__(
        self,
        pruning: Pruning,
        perform: Callable[[Program[Pruned]], Awaitable[Pruned]],
        rate: float | None,
    ) -> None:
        self._pruning = pruning
        self._perform = perform
        super().__init__(Pruned(), Pace(rate))

    async def _work(self) -> AsyncGenerator[Pruned]:
        while self._pruning.has_more and await self.rest(RowFence()):
            began, before = monotonic(), self.progress.forgotten
            self.progress = await self._perform(self._pruning.page())
            self.pace.spend(self.progress.forgotten - before, began, monotonic())
            yield self.progress
