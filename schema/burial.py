"""Moves rows from the outbox to the dead letters.

The move has two forms: one statement with CTEs, or plain statements in a transaction
for a database that refuses CTEs that write.
"""

from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from dsql_outbox.outbox.database.array_literals import array_literal, plain_array
from dsql_outbox.outbox.failure import NO_SUCH_FORM

from .error_pattern import error_pattern
from .outbox_rows import RowId, row_keys
from .session import Session, SessionTransaction


class Letter(NamedTuple):
    """A row to move to the dead letters after `attempts` attempts."""

    row: RowId
    error: str
    attempts: int


class Burial:
    """Moves rows, by plain statements after the database has refused the one statement.

    Raises the driver's errors.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_refused = False

    async def bury(self, letters: Collection[Letter]) -> int:
        """Move rows to the dead letters. Returns how many existed."""
        if not self._is_refused:
            with suppress(*NO_SUCH_FORM):  # a wrong match costs only the plain form
                return await self._session.execute("outbox_bury", burial_parameters(letters))
            self._is_refused = True
        return await self._session.transaction(partial(_plainly, letters))


async def _plainly(letters: Collection[Letter], transaction: SessionTransaction) -> int:
    """Move rows by plain statements, within a transaction.

    If another session settled a row meanwhile, `change` fails the transaction, and
    nothing is copied.
    """
    keys = row_keys([letter.row for letter in letters])
    copied = await transaction.execute("outbox_copy", burial_parameters(letters))
    await transaction.change("outbox_delete", keys, copied)
    await transaction.execute("failure_forget", keys)
    return copied


def burial_parameters(letters: Collection[Letter]) -> dict[str, Any]:
    """Return the parameters of ``outbox_bury`` and ``outbox_copy``."""
    return {
        **row_keys([letter.row for letter in letters]),
        "errors": array_literal(letter.error for letter in letters),
        "attempts": plain_array(letter.attempts for letter in letters),
        "patterns": array_literal(error_pattern(letter.error) for letter in letters),
    }
