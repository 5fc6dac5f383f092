"""Stored events that a test forgets, and the bytes of those that are left."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from dsql_outbox.operations import Retention
from dsql_outbox.operations.life.forget import ForgetProgress
from dsql_outbox.outbox import Database


def later() -> datetime:
    """A time after every event."""
    return datetime.now(UTC) + timedelta(days=1)


async def forget(
    database: Database, *, before: datetime | None = None, **settings: Any
) -> ForgetProgress:
    """Forget all that can be, and return what was done."""
    async with Retention(database) as tool:
        return await tool.forget(before or later(), **settings)


def texts(sql: psycopg.Connection[Any]) -> dict[UUID, str]:
    """The bytes of each stored event."""
    return dict(sql.execute("SELECT id, event_data::text FROM outbox.business_events").fetchall())
