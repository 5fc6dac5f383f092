"""From the outbox to the dead letters, in the form that the database takes."""

from functools import partial
from typing import Any, Final
from uuid import UUID

import psycopg

from dsql_outbox.outbox import NO_SUCH_FORM, plain_array
from dsql_outbox.publisher.operator.session import OperatorSession, OperatorTransaction

from .outbox_rows import RowId

NO_ROW: Final = {"shard": -1, "position": -1, "event_id": UUID(int=0), "error": "", "attempts": 0}
"""Parameters of ``outbox_bury`` with which it changes nothing: there is no such shard."""

NO_SHARD: Final = {
    **dict.fromkeys(("shards", "positions", "event_ids", "limits"), plain_array([])),
    "bytes": 0,
}
"""Parameters of ``outbox_read`` with which it reads nothing."""

_TRIES: Final = 3


class Burial:
    """Buries rows one by one; the first time it asks which form the database takes.

    Raises the driver's errors.
    """

    def __init__(self, session: OperatorSession) -> None:
        self._session = session
        self._is_plain: bool | None = None

    async def bury(self, row: RowId, *, error: str, attempts: int) -> bool:
        """Move a row to the dead letters; whether it was there."""
        if self._is_plain is None:
            self._is_plain = await self._refuses_cte()
        parameters = {**row._asdict(), "error": error, "attempts": attempts}
        if self._is_plain:
            return await self._session.transaction(partial(_plainly, row, parameters))
        return await self._session.count("outbox_bury", parameters) > 0

    async def _refuses_cte(self) -> bool:
        for tries_left in reversed(range(_TRIES)):
            try:
                await self._session.count("outbox_bury", NO_ROW)
            except NO_SUCH_FORM:
                return True
            except psycopg.errors.InternalError_:  # "server unavailable" on Aurora DSQL
                if not tries_left:
                    raise
            else:
                return False
        raise AssertionError("unreachable")


async def _plainly(
    row: RowId, parameters: dict[str, Any], transaction: OperatorTransaction
) -> bool:
    """All or nothing: a row that somebody else has settled does not die twice."""
    keys = {
        "shards": plain_array([row.shard]),
        "positions": plain_array([row.position]),
        "event_ids": plain_array([row.event_id]),
    }
    copied = await transaction.count("outbox_copy", parameters)
    await transaction.change("outbox_delete", keys, copied)
    await transaction.count("failure_forget", keys)
    return copied > 0
