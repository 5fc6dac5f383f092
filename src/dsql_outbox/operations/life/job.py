"""The lease of a job that changes stored events."""

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Self
from uuid import uuid4

import anyio
import psycopg

from dsql_outbox.operations.pages import LEAVE
from dsql_outbox.outbox.errors import JobRefused, OutboxError
from dsql_outbox.schema.session import Session, SessionTransaction

LifeVerb = Literal["erase", "forget"]

LEASE: Final = 60.0
"""Seconds that a job has for one step."""

MAX_ROWS: Final = 1_000
"""Most rows of one transaction. Aurora DSQL allows 3,000; a transaction of as many rows is felt by
every writer beside it."""

MAX_BYTES: Final = 8 << 20
"""Most bytes of one transaction. Aurora DSQL allows 10 MiB."""


class LifeJob:
    """A running job: it has the lease until another job begins, which its next step finds.

    It is the fence of a run (see `run.Fence`).

    Each change is made in a transaction with `step_in`, so that a job that was paused for longer
    than its lease changes nothing after another one has begun.
    """

    def __init__(self, session: Session, owner: str, epoch: int) -> None:
        self._session = session
        self._mine = {"owner": owner, "epoch": epoch}
        self._has_ended = False

    @property
    def lease(self) -> float:
        """Seconds that the job has from one step to the next."""
        return LEASE

    @classmethod
    @asynccontextmanager
    async def running(cls, session: Session, verb: LifeVerb) -> AsyncGenerator[Self]:
        """Begin a job, and give the lease back at the end.

        Raises `JobRefused` if another job runs, or has begun in the block.
        """
        owner = f"{socket.gethostname()[:64]}:{os.getpid()}:{uuid4().hex[:8]}"
        asked = {"owner": owner, "lease": LEASE, "verb": verb}
        rows = await session.fetch_rows("job_begin", asked)
        if not rows:
            raise await _refusal(session)
        job = cls(session, owner, rows[0][0])
        try:
            yield job
        finally:
            # After an error, the lease ends by itself if the database cannot be reached.
            with anyio.move_on_after(LEAVE, shield=True), suppress(OutboxError, psycopg.Error):
                await job.end()

    async def step_in(
        self, transaction: SessionTransaction, *, erased: int = 0, forgotten: int = 0
    ) -> None:
        """Record a step in the transaction that makes it, and renew the lease.

        Raises `JobRefused` if another job has begun.
        """
        transaction.can_be_cancelled()  # else it could hold the row, though its job has ended
        parameters = self._step | {"erased": erased, "forgotten": forgotten}
        if await transaction.execute("job_step", parameters) != 1:
            raise _lost()

    async def renew(self, *, forgotten_before: datetime | None = None) -> None:
        """Renew the lease. From now on, events from before that time may be missing."""
        parameters = self._step | {"forgotten_before": forgotten_before}
        if await self._session.execute("job_step", parameters) != 1:
            raise _lost()

    async def end(self, *, has_forgotten: bool = False) -> None:
        """Give the lease back, once. `has_forgotten`: a whole forget job was done."""
        if not self._has_ended:
            await self._session.execute("job_end", self._mine | {"has_forgotten": has_forgotten})
            self._has_ended = True

    @property
    def _step(self) -> dict[str, Any]:
        nothing = {"erased": 0, "forgotten": 0, "forgotten_before": None}
        return {**self._mine, "lease": LEASE, **nothing}


class JobRow(NamedTuple):
    """A row of ``job_row``; `left` are the seconds of the lease that are left."""

    owner: str | None
    verb: str
    left: float


async def refuse_filling(reader: Session | SessionTransaction) -> None:
    """Raise `JobRefused` while a target opens or fills: it needs every event."""
    for name, state in await reader.fetch_rows("jobs_filling", {}):
        raise JobRefused(f"target {name} is {state}, and needs every event")


async def _refusal(session: Session) -> JobRefused:
    rows = await session.fetch("job_row", JobRow, {})
    if rows and rows[0].owner is not None:
        found = rows[0]
        left = f"its lease ends in {found.left:.0f} s unless it goes on"
        return JobRefused(f"the job {found.verb} of {found.owner} runs; {left}")
    return JobRefused("another job runs")


def _lost() -> JobRefused:
    return JobRefused("another job has begun, as this one took too long for a step")
