"""What an operator does with messages that failed and still wait in the outbox."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox import array_literal, parse_subject_key, subject_key
from dsql_outbox.publisher.relay.burial import Burial
from dsql_outbox.publisher.relay.cursors import HEAD
from dsql_outbox.publisher.relay.outbox_rows import RowId

from .pages import PAGE_ROWS, id_ranges
from .session import Operator


class Failure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that failed and holds its subject; `retry_at` is None if it is blocked."""

    event_id: UUID
    position: int
    shard: int
    subject: str
    subject_version: int
    topic: str
    error: str
    attempts: int
    retry_at: datetime | None


class FailureFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which failures: all that fit every field that is set; `subject` is ``TYPE/ID``."""

    event_ids: tuple[UUID, ...] = ()
    subject: str | None = None
    blocked: bool = False

    def parameters(self) -> dict[str, Any]:
        """For the statement; raises `SettingsError` for a subject that is no ``TYPE/ID``."""
        subject = (None, None) if self.subject is None else parse_subject_key(self.subject)
        return {"subject_type": subject[0], "subject_id": subject[1], "blocked": self.blocked}


_ALL: Final = FailureFilter()


class Failures(Operator):
    """The failed messages that wait: look at them, have them tried now, give them up.

    Making one does no I/O; leave it by `async with` or `close`. All methods
    raise `SchemaError` if the tables are missing, `SettingsError` for a filter
    that breaks a rule, else the driver's errors.
    """

    async def find(self, which: FailureFilter = _ALL) -> AsyncGenerator[Failure]:
        """Those that are meant, in order of event id; memory does not grow with their number."""
        parameters = which.parameters()
        for ids in id_ranges(which.event_ids):
            after: dict[str, Any] = {
                "event_id": ids.first,
                "position": HEAD.position,
                "last": ids.last,
            }
            seen = PAGE_ROWS
            while seen == PAGE_ROWS:
                rows = await self._session.rows(
                    "failure_page", parameters | after | {"rows": PAGE_ROWS}
                )
                seen, last_id, last_position = rows[0][:3]
                if seen:
                    after |= {"event_id": last_id, "position": last_position}
                for row in rows:
                    if row[3] is not None:
                        yield _failure(row[3:])

    async def retry(self, which: FailureFilter) -> AsyncGenerator[Failure]:
        """Forget that they failed: each is tried now, with all its attempts before it."""
        async with aclosing(self.find(which)) as failures:
            async for failure in failures:
                key = {
                    "positions": array_literal([failure.position]),
                    "event_ids": array_literal([failure.event_id]),
                }
                if await self._session.count("failure_forget", key):
                    yield failure

    async def bury(self, which: FailureFilter) -> AsyncGenerator[Failure]:
        """Give them up: each moves to the dead letters, and its subject goes on."""
        burial = Burial(self._session)
        async with aclosing(self.find(which)) as failures:
            async for failure in failures:
                row = RowId(failure.shard, failure.position, str(failure.event_id))
                if await burial.bury(row, error=failure.error, attempts=failure.attempts):
                    yield failure


def _failure(row: Any) -> Failure:
    event_id, position, shard, subject_type, subject_id, version, topic, *rest = row
    error, attempts, retry_at = rest
    return Failure(
        event_id=event_id,
        position=position,
        shard=shard,
        subject=subject_key(subject_type, subject_id),
        subject_version=version,
        topic=topic,
        error=error,
        attempts=attempts,
        retry_at=retry_at,
    )
