"""Moves rows from the outbox to the dead letters, with the patterns of their errors.

The move has two forms: one statement with CTEs, or plain statements in a transaction
for a database that refuses CTEs that write.
"""

import re
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from dsql_outbox.outbox.database.array_literals import array_literal, plain_array
from dsql_outbox.outbox.failure import NO_SUCH_FORM

from .outbox_rows import RowId, row_keys
from .session import Session, SessionTransaction

_READ: Final = 1_000
_LONGEST: Final = 200

_SPACE: Final = re.compile(r"[^\S ]+| {2,}")
_WORD: Final = re.compile(r"""(?:[^\s"'`()\[\]{}<>,;=|]|(?<=\d),(?=\d))+""")
_STATUS: Final = re.compile(r"[45]\d\d")
_RUN: Final = re.compile(r"\*(?: ?\*)+")


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


def error_pattern(error: str) -> str:
    """Return the pattern that errors of one kind share; ``*`` stands for any text.

    A word with a digit varies: an id, a number, a time, an address. Only the status of an HTTP
    answer stays, 400 to 599, as it tells errors apart. The pattern has at most 200 characters,
    all printable, and `Selection.error` accepts it.

        >>> error_pattern("message LOAN-7 of 1,048,812 bytes: HTTP 413")
        'message * of * bytes: HTTP 413'
    """
    text = _SPACE.sub("*", error[:_READ].strip())
    text = "".join(each if each.isprintable() else "*" for each in text)
    return _RUN.sub("*", _WORD.sub(_without_varying, text))[:_LONGEST].strip()


def _without_varying(found: re.Match[str]) -> str:
    word = found[0]
    bare = word.rstrip(".:!?")
    if _STATUS.fullmatch(bare) or not any(each.isdigit() for each in bare):
        return word
    return "*" + word[len(bare) :]
