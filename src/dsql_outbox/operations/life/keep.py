"""Forget old events again and again."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import psycopg

from dsql_outbox.operations.run import Run
from dsql_outbox.operations.tool import OperationEntry
from dsql_outbox.outbox.errors import JobRefused
from dsql_outbox.outbox.failure import PASSING, Moved, kind_of, shown_error
from dsql_outbox.schema.session import Session

from .forget import ForgetProgress, ForgetRun

_AGAIN: Final = 60.0
"""Most seconds until the next pass, if one could not do its work."""


class Pass(msgspec.Struct, frozen=True, rename="camel"):
    """A pass that has ended: it looked for events saved before a time, and `done` is what it did.

    `error` says why it was not complete: an error of the database that passes, another job ran, or
    a target was filled. None: it was.
    """

    before: datetime
    done: ForgetProgress
    error: str | None = None


class KeepRun(Run[ForgetProgress, Pass]):
    """A run of `Retention.keep`. Its progress is that of the last pass that has begun."""

    def __init__(
        self,
        session: Session,
        age: timedelta,
        every: timedelta,
        entry: OperationEntry,
        *,
        rate: float | None,
    ) -> None:
        self._session = session
        self._age = age
        self._every = every
        self._entry = entry
        self._rate = rate
        self._run: ForgetRun | None = None
        self.next_at: datetime | None = None
        """When the next pass begins; None during a pass."""
        super().__init__(ForgetProgress())

    def stop(self) -> None:
        """End the run after the transaction in progress, or at once between two passes."""
        super().stop()
        if self._run is not None:
            self._run.stop()

    async def _work(self) -> AsyncGenerator[Pass]:
        while not self.is_stopping:
            self.next_at = None
            told = await self._pass(datetime.now(UTC) - self._age)
            wait = self._every.total_seconds()
            if told.error is not None:
                wait = min(wait, _AGAIN)
            self.next_at = datetime.now(UTC) + timedelta(seconds=wait)
            yield told
            await self.pause(wait)

    async def _pass(self, before: datetime) -> Pass:
        run = ForgetRun(self._session, before, self._entry, rate=self._rate, dry_run=False)
        self._run, self.progress = run, run.progress
        error: str | None = None
        try:
            async with aclosing(run):
                async for self.progress in run:
                    pass
        except (JobRefused, psycopg.Error, Moved) as failure:
            if not isinstance(failure, JobRefused) and kind_of(failure) not in PASSING:
                raise
            error = shown_error(failure)
        self.progress = run.progress
        return Pass(before, run.progress, error)
