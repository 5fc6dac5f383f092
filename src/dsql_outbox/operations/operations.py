"""What operators did, and why: one row per call of a verb."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Final

import msgspec

from dsql_outbox.schema.operation import Verb
from dsql_outbox.schema.session import Session

from .tool import Operator

_PAGE_ROWS: Final = 1_000
_LOOKED: Final = 10_000


class Operation(msgspec.Struct, frozen=True, rename="camel"):
    """One call of a verb that changed something, or was about to.

    `verb` is the name of the command, such as ``topics pause``, also for a call from Python.
    `object` is the topic or the number of shards; it is empty for messages. `reason` is the text
    that the caller gave. `database_role` is the role of the session. `user_name` is the user of
    the process, or the one that the caller named.
    """

    operated_at: datetime
    verb: str
    object: str
    reason: str
    database_role: str
    user_name: str


class Operations(Operator):
    """What operators did.

    The constructor does no I/O. Use ``async with`` or call `close`. `list` raises `SchemaError`
    if the tables are missing, and the driver's errors.
    """

    async def list(self) -> AsyncGenerator[Operation]:
        """All operations, the newest first; close a generator that is left early."""
        place: tuple[str, str | None] = ("infinity", None)
        seen = _PAGE_ROWS
        while seen == _PAGE_ROWS:
            parameters = {"operated_at": place[0], "id": place[1], "rows": _PAGE_ROWS}
            rows = await self._session.fetch("operation_page", _placed, parameters)
            seen = len(rows)
            for key, each in rows:
                yield each
                operated_at, _, id_ = key.rpartition("/")
                place = operated_at, id_


async def last_operation(session: Session, verb: Verb, of: str | None = None) -> datetime | None:
    """When a verb was last called, of one object or of any; None: not in the last 10,000 calls."""
    parameters = {"verb": verb, "object": of}
    found: datetime | None
    ((found,),) = await session.fetch_rows("operation_last", parameters, limit=_LOOKED)
    return found


def _placed(*, place: str, **rest: Any) -> tuple[str, Operation]:
    """The key of a row of ``operation_page`` as text, and the call."""
    return place, Operation(**rest)
