"""Rows that nothing has happened to: a page keeps them as a read brought them. No I/O.

A row in a page is the row that it would be in the queue of its subject, and is not made yet. Most
rows are read, sent, acknowledged and deleted without anything that is about one of them alone. So a
page takes each of these steps for all of its rows together: they are of one shard and one topic,
and their subjects have no row elsewhere.

When something is about one row, the run of its subject leaves the page, in the stage that it has,
and is an ordinary run of an ordinary subject from then on (`Queues.take_out`).
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Final, TypeVar

from dsql_outbox.outbox.message import Message
from dsql_outbox.schema.outbox_rows import Fault, OutboxRow, RawRow, RowId, Stage, messages_of

from .subjects import Shard, Subject

OUTBOX, WAITING, SENT, DELIVERED, ACKNOWLEDGED, SETTLED, GONE = range(7)
"""The byte of a row. The broker has one that is DELIVERED, and the books do not know that yet; one
that is GONE is a subject's."""

STAGES: Final[dict[int, Stage]] = {
    OUTBOX: "outbox",
    WAITING: "waiting",
    SENT: "sent",
    DELIVERED: "sent",
    ACKNOWLEDGED: "acknowledged",
    SETTLED: "settled",
}
"""The stage of a row by its byte."""

_BYTES: Final = {stage: byte for byte, stage in STAGES.items() if byte != DELIVERED}

_LET_GO: Final[RawRow] = ()
"""Stands for a row that nobody asks for any more: a call may keep its page for long."""

T = TypeVar("T")


class Page:
    """Rows of one shard and one topic; those of a subject stand side by side, in order.

    `stages` has a byte per row, and `sizes` are in bytes. If one row of a page waits, all do.
    """

    LEAST: Final = 4
    """The fewest rows to make a page of; fewer cost less in the queues of their subjects."""

    __slots__ = (
        *("shard", "topic", "longest", "rows", "keys", "ids", "sizes", "stages"),
        *("subjects", "answered"),
    )

    def __init__(  # noqa: PLR0913, PLR0917 - its columns
        self,
        shard: Shard,
        topic: str,
        rows: list[RawRow],
        keys: list[str],
        ids: list[RowId],
        sizes: list[int],
        longest: int,
    ) -> None:
        self.shard = shard
        self.topic = topic
        self.longest = longest
        """The most rows of a subject, or more."""
        self.rows = rows
        self.keys = keys
        self.ids = ids
        self.sizes = sizes
        self.stages = bytearray(len(rows))
        self.subjects: dict[int, Subject] = {}
        """The subjects of the rows that are GONE, by index."""
        self.answered: list[int] = []
        """The indexes of the rows that are DELIVERED."""

    def __len__(self) -> int:
        """The number of its rows."""
        return len(self.rows)

    @property
    def part(self) -> "Part":
        """All of its rows."""
        return Part(self, range(len(self.rows)))

    @property
    def waits(self) -> bool:
        """Whether it is not on its way."""
        return WAITING in self.stages

    def run(self, at: int) -> range:
        """The indexes of the rows of a subject that wait or are on their way, one of them `at`."""
        keys, stages = self.keys, self.stages
        first = end = at
        while first and keys[first - 1] == keys[at]:
            first -= 1
        while end < len(keys) and keys[end] == keys[at]:
            end += 1
        while first < end and stages[first] > SENT:
            first += 1
        return range(first, end)

    def row(self, at: int) -> OutboxRow:
        """Make the row at an index."""
        row = OutboxRow.read(self.rows[at])
        row.size, row.stage = self.sizes[at], STAGES[self.stages[at]]
        return row

    def leave(self, run: range, subject: Subject) -> None:
        """Let rows be those of a subject. On its way, a page keeps the indexes of the others."""
        if self.stages[run.start] == WAITING:
            self.remove(run.start, run.stop)
            return
        for at in run:
            self.stages[at], self.rows[at] = GONE, _LET_GO
            self.subjects[at] = subject

    def cut(self, most: int) -> "Page | None":
        """Take the first rows, up to `most`, off one that waits.

        None: they are too few for a page, or part of a longer run.
        """
        end = most
        while end and self.keys[end] == self.keys[end - 1]:
            end -= 1
        if end < self.LEAST:
            return None
        first = slice(end)
        columns = (self.rows[first], self.keys[first], self.ids[first], self.sizes[first])
        page = Page(self.shard, self.topic, *columns, self.longest)
        page.stages = self.stages[first]
        self.remove(0, end)
        return page

    def remove(self, first: int, end: int) -> None:
        """Forget the rows from one index up to another one, of a page that waits."""
        for column in (self.rows, self.keys, self.ids, self.sizes, self.stages):
            del column[first:end]

    def let_go(self, at: int) -> None:
        """Forget the columns of a row that the broker has."""
        self.rows[at] = _LET_GO

    def ends_run(self, at: int) -> bool:
        """Whether the row at an index is the last one of its subject here."""
        return at + 1 == len(self.keys) or self.keys[at + 1] != self.keys[at]

    def messages(self, indexes: Sequence[int], picked_up_ns: int) -> Iterator[Message | Fault]:
        """The messages of some rows, or why they are not valid; `picked_up_ns` is the time."""
        part = Part(self, indexes)
        first, epoch = repeat(1), repeat(self.shard.epoch)
        return messages_of(part.rows, part.keys, picked_up_ns, attempts=first, epochs=epoch)


class Part:
    """Some rows of a page, by their indexes, which all have one stage."""

    __slots__ = ("_is_all", "indexes", "page")

    def __init__(self, page: Page, indexes: Sequence[int]) -> None:
        self.page = page
        self.indexes = indexes
        self._is_all = len(indexes) == len(page.rows)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.indexes)

    @property
    def shard(self) -> int:
        """The number of their shard."""
        return self.page.shard.number

    @property
    def share(self) -> str:
        """The part of the memory that they take room of."""
        return self.page.topic

    @property
    def stage(self) -> Stage:
        """Their stage."""
        return STAGES[self.page.stages[self.indexes[0]]]

    @stage.setter
    def stage(self, to: Stage) -> None:
        page, byte = self.page, _BYTES[to]
        if self._is_all:
            page.stages = bytearray((byte,)) * len(self.indexes)
            return
        for at in self.indexes:
            page.stages[at] = byte

    @property
    def rows(self) -> list[RawRow]:
        """The rows as a read brought them."""
        return self._of(self.page.rows)

    @property
    def keys(self) -> list[str]:
        """Their subjects."""
        return self._of(self.page.keys)

    @property
    def ids(self) -> list[RowId]:
        """Their primary keys."""
        return self._of(self.page.ids)

    @property
    def size(self) -> int:
        """Their bytes."""
        return sum(self._of(self.page.sizes))

    def _of(self, column: list[T]) -> list[T]:
        return column if self._is_all else [column[at] for at in self.indexes]
