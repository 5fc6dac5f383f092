"""Move rows from the outbox to the dead letters.

The move has two forms: one statement with CTEs, or plain statements in a transaction
for a database that refuses CTEs that write.
"""

from functools import partial
from typing import Any, Final
from uuid import UUID

from dsql_outbox.outbox import NO_SUCH_FORM, SERVER_TROUBLE, RetryPolicy, plain_array
from dsql_outbox.publisher.session import OperatorSession, OperatorTransaction

from .outbox_rows import RowId

NO_ROW: Final = {"shard": -1, "position": -1, "event_id": UUID(int=0), "error": "", "attempts": 0}
"""Parameters for ``outbox_bury`` that match no row, because there is no such shard."""

NO_SHARD: Final = {
    **dict.fromkeys(("shards", "positions", "event_ids", "limits"), plain_array([])),
    "bytes": 0,
}
"""Parameters for ``outbox_read`` that match no row."""

_ASK: Final = RetryPolicy(SERVER_TROUBLE, waits=(0.0, 0.0))


class Burial:
    """Moves rows one by one; the first call finds out which form the database accepts.

    Raises the driver's errors.
    """

    def __init__(self, session: OperatorSession) -> None:
        self._session = session
        self._is_plain: bool | None = None

    async def bury(self, row: RowId, *, error: str, attempts: int) -> bool:
        """Move a row to the dead letters; returns whether the row existed."""
        if self._is_plain is None:
            self._is_plain = await self._refuses_cte()
        parameters = {**row._asdict(), "error": error, "attempts": attempts}
        if self._is_plain:
            return await self._session.transaction(partial(_plainly, row, parameters))
        return await self._session.count("outbox_bury", parameters) > 0

    async def _refuses_cte(self) -> bool:
        try:
            await _ASK.run_async(partial(self._session.count, "outbox_bury", NO_ROW))
        except NO_SUCH_FORM:
            return True
        return False


async def _plainly(
    row: RowId, parameters: dict[str, Any], transaction: OperatorTransaction
) -> bool:
    """Move a row by plain statements, within a transaction.

    If another session settled the row meanwhile, `change` fails the transaction and
    nothing is copied.
    """
    keys = {
        "shards": plain_array([row.shard]),
        "positions": plain_array([row.position]),
        "event_ids": plain_array([row.event_id]),
    }
    copied = await transaction.count("outbox_copy", parameters)
    await transaction.change("outbox_delete", keys, copied)
    await transaction.count("failure_forget", keys)
    return copied > 0
