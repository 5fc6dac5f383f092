"""What `write` tells of each event: one JSON object a line, as soon as it is known."""

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
    """An event that is not stored, or an input that cannot be read on.

    `error` is the type's name. `record` counts from 1, `byte` from 0; both
    are of `input`. `same_content`, of a `DuplicateEvent` only: whether the
    event that is stored under this id has the same content.
    """

    event_id: UUID | None
    error: str
    message: str
    input: str
    record: int
    byte: int
    same_content: bool | None = None


class Reporter:
    """Counts and prints: receipts on standard output, failures on standard error.

    `above_bar` prints a line on a terminal that shows a progress bar.
    """

    def __init__(self, tally: Tally, above_bar: Callable[[str], None] | None) -> None:
        self._tally = tally
        self._above_bar = above_bar
        self._locks = {STDOUT: anyio.Lock(), STDERR: anyio.Lock()}

    async def stored(self, receipts: Sequence[Receipt]) -> None:
        """Tell of events that are in the database; raises `OSError` if nobody listens."""
        for receipt in receipts:
            self._tally.add(receipt)
        await self._print(STDOUT, receipts)

    async def failed(self, place: InputLocation, event_id: UUID | None, error: Exception) -> None:
        """Tell of one that is not, as far as we know; raises `OSError` if nobody listens."""
        self._tally.add_failed(error)
        same = error.same_content if isinstance(error, DuplicateEvent) else None
        failure = FailureLine(event_id, type(error).__name__, told(error), *place, same)
        await self._print(STDERR, [failure])

    async def _print(self, descriptor: int, values: Sequence[msgspec.Struct]) -> None:
        lines = visible_json(bytes(_encoder.encode_lines(values)))
        if self._above_bar is not None and os.isatty(descriptor):
            self._above_bar(lines.decode().rstrip("\n"))
            return
        async with self._locks[descriptor]:  # lines never mix
            await write_all(descriptor, lines)
