"""The report of `write`: one JSON object per event and line, as soon as a result is known."""

import os
from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

import anyio
import msgspec

from dsql_outbox.observability import visible_json
from dsql_outbox.outbox import DuplicateEvent, Receipt, told

from .counts import Tally
from .descriptors import write_all
from .inputs import InputLocation

STDOUT: Final = 1
STDERR: Final = 2

_encoder: Final = msgspec.json.Encoder()


class FailureLine(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An event that is not stored, or an input that cannot be read any further.

    `error` is the name of the exception's type. `record` (from 1) and `byte`
    (from 0) are the event's location in `input`. `same_content` is given only for
    a `DuplicateEvent`: whether the event stored under this id has the same content.
    """

    event_id: UUID | None
    error: str
    message: str
    input: str
    record: int
    byte: int
    same_content: bool | None = None


class Reporter:
    """Counts and prints receipts (on standard output) and failures (on standard error).

    `print_above` prints a line on a terminal that shows the progress.
    """

    def __init__(self, tally: Tally, print_above: Callable[[str], None] | None) -> None:
        self._tally = tally
        self._print_above = print_above
        self._locks = {STDOUT: anyio.Lock(), STDERR: anyio.Lock()}

    async def stored(self, receipts: Sequence[Receipt]) -> None:
        """Report stored events. Raises `OSError` if standard output cannot be written to."""
        for receipt in receipts:
            self._tally.add(receipt)
        await self._print(STDOUT, receipts)

    async def failed(self, place: InputLocation, event_id: UUID | None, error: Exception) -> None:
        """Report an event that is not stored, or whose outcome is unknown.

        Raises `OSError` if standard error cannot be written to.
        """
        self._tally.add_failed(error)
        same = error.same_content if isinstance(error, DuplicateEvent) else None
        failure = FailureLine(event_id, type(error).__name__, told(error), *place, same)
        await self._print(STDERR, [failure])

    async def _print(self, descriptor: int, values: Sequence[msgspec.Struct]) -> None:
        lines = visible_json(bytes(_encoder.encode_lines(values)))
        if self._print_above is not None and os.isatty(descriptor):
            self._print_above(lines.decode().rstrip("\n"))
            return
        async with self._locks[descriptor]:  # so that lines of two workers never mix
            await write_all(descriptor, lines)
