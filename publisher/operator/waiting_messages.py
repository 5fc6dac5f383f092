"""The operator's tool for messages that wait in the outbox."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox import parse_subject_key, subject_key
from dsql_outbox.publisher.backlog import has_backlog
from dsql_outbox.publisher.session import Operator

from .pages import FIRST_ID, FIRST_POSITION, FIRST_SHARD, PAGE_ROWS


class WaitingMessage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message in the outbox, which may have failed before, without its payload.

    `position` is in microseconds, and `payload_bytes` the size of the payload.
    """

    event_id: UUID
    shard: int
    position: int
    subject: str
    subject_version: int
    topic: str
    payload_bytes: int
    created_at: datetime


class WaitingFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects the waiting messages that match every field that is set.

    `subject` is ``TYPE/ID``; `topic` matches exactly.
    """

    subject: str | None = None
    topic: str | None = None

    def parameters(self) -> dict[str, Any]:
        """The parameters of the statement. Raises `SettingsError` for a malformed `subject`."""
        subject = (None, None) if self.subject is None else parse_subject_key(self.subject)
        return {"subject_type": subject[0], "subject_id": subject[1], "topic": self.topic}


_ALL: Final = WaitingFilter()


class Waiting(Operator):
    """The messages that wait in the outbox.

    The constructor does no I/O. Use ``async with`` or call `close`.
    """

    async def find(self, which: WaitingFilter = _ALL) -> AsyncGenerator[WaitingMessage]:
        """The selected messages, shard by shard, each in the order in which it is sent.

        This reads the whole outbox, at most 1,000 rows per statement; memory does not
        grow. Close a generator that is left early. Raises `SchemaError` if the tables are
        missing, `SettingsError` for a malformed filter, and the driver's errors.
        """
        parameters = which.parameters() | {"rows": PAGE_ROWS}
        after = {"shard": FIRST_SHARD, "position": FIRST_POSITION, "event_id": FIRST_ID}
        seen = PAGE_ROWS
        while seen == PAGE_ROWS:
            rows = await self._session.rows("waiting_page", parameters | after)
            seen, *reached = rows[0][:4]
            if seen:
                after = dict(zip(after, reached, strict=True))
            for row in rows:
                if row[4] is not None:
                    yield _waiting(row[4:])

    async def can_be_sent(self) -> bool:
        """Whether one of them can be sent now or later, without an operator.

        This reads the outbox in pages until it finds one. Raises `SchemaError` if the tables
        are missing, and the driver's errors.
        """
        return await has_backlog(self._session)


def _waiting(row: Any) -> WaitingMessage:
    event_id, shard, position, subject_type, subject_id, version, topic, size, created_at = row
    return WaitingMessage(
        event_id=event_id,
        shard=shard,
        position=position,
        subject=subject_key(subject_type, subject_id),
        subject_version=version,
        topic=topic,
        payload_bytes=size,
        created_at=created_at,
    )
