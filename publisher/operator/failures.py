"""The operator's tool for messages that failed and still wait in the outbox."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox import array_literal, parse_subject_key, subject_key
from dsql_outbox.publisher.burial import Burial, Letter
from dsql_outbox.publisher.outbox_rows import RowId
from dsql_outbox.publisher.session import Operator

from .pages import (
    FIRST_ID,
    LAST_ID,
    PAGE_ROWS,
    Block,
    Page,
    id_ranges,
    read_page,
)


class Failure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that failed and holds back its subject.

    `retry_at` is the time of the next attempt, or None if the message is blocked and waits
    for an operator. `position` is in microseconds. With `behind`, an earlier message of its
    subject still waits in the outbox, so this one cannot be sent yet.
    """

    event_id: UUID
    position: int
    shard: int
    subject: str
    subject_version: int
    topic: str
    error: str
    attempts: int
    retry_at: datetime | None
    behind: bool = False


class FailureFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects the failures that match every field that is set.

    `subject` is ``TYPE/ID``, and `topic` matches exactly; `blocked` selects only those
    that wait for an operator.
    """

    event_ids: tuple[UUID, ...] = ()
    subject: str | None = None
    topic: str | None = None
    blocked: bool = False

    def parameters(self) -> dict[str, Any]:
        """The parameters of the statement. Raises `SettingsError` for a malformed `subject`."""
        subject = (None, None) if self.subject is None else parse_subject_key(self.subject)
        return {
            "subject_type": subject[0],
            "subject_id": subject[1],
            "topic": self.topic,
            "blocked": self.blocked,
        }


class FailureKey(NamedTuple):
    """The key of a failure in the order of its table; `position` is in microseconds.

    As a place to read from, None is before all failures of the event.
    """

    event_id: UUID
    position: int | None = None


FIRST_FAILURE: Final = FailureKey(FIRST_ID)
"""Before every failure."""

_ALL: Final = FailureFilter()
_BLOCKS: Final = (500,) * 4  # for more rows, PostgreSQL would read the whole outbox


class Failures(Operator):
    """The messages that failed and still wait in the outbox.

    The constructor does no I/O. Use ``async with`` or call `close`. Every method
    returns a generator; close a generator that is left early. All methods raise
    `SchemaError` if the tables are missing, `SettingsError` for a malformed filter,
    and the driver's errors.
    """

    async def find(self, which: FailureFilter = _ALL) -> AsyncGenerator[Failure]:
        """The selected failures, in order of event id; memory does not grow with their number."""
        for ids in id_ranges(which.event_ids):
            after = FailureKey(ids.first)
            seen = PAGE_ROWS
            while seen == PAGE_ROWS:
                seen, after, found = await self._block(which, after, PAGE_ROWS, last=ids.last)
                for failure in found:
                    yield failure

    async def page(
        self, which: FailureFilter = _ALL, after: FailureKey = FIRST_FAILURE, *, rows: int = 50
    ) -> Page[FailureKey, Failure]:
        """Up to `rows` of the selected failures after a key, in order of event id.

        This reads at most 2,000 rows, however few match. The `event_ids` of the filter
        are ignored.
        """

        async def block(key: FailureKey, size: int) -> Block[FailureKey, Failure]:
            return await self._block(which, key, size)

        return await read_page(block, _key_of, after, rows, _BLOCKS)

    async def _block(
        self, which: FailureFilter, after: FailureKey, rows: int, *, last: UUID = LAST_ID
    ) -> Block[FailureKey, Failure]:
        """The selected failures among the next `rows` after a key, up to the event id `last`."""
        bounds = after._asdict() | {"last": last, "rows": rows}
        found = await self._session.rows("failure_page", which.parameters() | bounds)
        seen, *key = found[0][:3]
        reached = FailureKey(*key) if seen else after
        return Block(seen, reached, [_failure(row[3:]) for row in found if row[3] is not None])

    async def retry(self, which: FailureFilter) -> AsyncGenerator[Failure]:
        """Delete the record of the selected failures, so that their messages are sent again now.

        Their attempts count from 1 again. Yields each failure after its record was
        deleted. A message that is `behind` another one still waits for that one.
        """
        async with aclosing(self.find(which)) as failures:
            async for failure in failures:
                key = {
                    "positions": array_literal([failure.position]),
                    "event_ids": array_literal([failure.event_id]),
                }
                if await self._session.count("failure_forget", key):
                    yield failure

    async def bury(self, which: FailureFilter) -> AsyncGenerator[Failure]:
        """Move the selected messages to the dead letters, so that their subjects go on.

        Yields each failure after its message was moved. A message that is `behind` another
        one is not moved, but yielded: without it, later messages would no longer wait for the
        message before it.
        """
        burial = Burial(self._session)
        behind: list[Failure] = []
        async with aclosing(self.find(which)) as failures:
            async for failure in failures:
                if failure.behind:
                    behind.append(failure)
                elif await _bury(burial, failure):
                    yield failure
        for failure in sorted(behind, key=lambda each: each.position):
            if await self._is_behind(failure):
                yield failure
            elif await _bury(burial, failure):
                yield msgspec.structs.replace(failure, behind=False)

    async def _is_behind(self, failure: Failure) -> bool:
        key = {
            "shard": failure.shard,
            "position": failure.position,
            "event_id": failure.event_id,
        }
        return bool((await self._session.rows("failure_behind", key))[0][0])


def _key_of(failure: Failure) -> FailureKey:
    return FailureKey(failure.event_id, failure.position)


async def _bury(burial: Burial, failure: Failure) -> bool:
    row = RowId(failure.shard, failure.position, str(failure.event_id))
    return await burial.bury([Letter(row, failure.error, failure.attempts)]) > 0


def _failure(row: Any) -> Failure:
    event_id, position, shard, subject_type, subject_id, version, topic, *rest = row
    error, attempts, retry_at, behind = rest
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
        behind=behind,
    )
