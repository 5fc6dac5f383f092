"""The life of a row in memory: its stages, the steps between them, and their books. No I/O.

`STEPS` has all that can happen to a row, and `STAGES` what it counts as meanwhile. `Rows.move` is
the only way from one stage to another: it changes every book, and raises for any other step.
Back in the outbox, a row is read again when it can be sent.

A shard may be lost and taken again while one of its rows is on its way. Then the row is read
again, so there are two copies of it, each with a stage of its own.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from dsql_outbox.schema.outbox_rows import OutboxRow, RowId, Stage

from .pages import Page, Part
from .shares import Shares

if TYPE_CHECKING:
    from collections.abc import Callable


class Counted(NamedTuple):
    """What a row of a stage counts as; a step changes each book by the difference."""

    memory: int = 0
    """It takes room in the memory, and in its share of it."""
    busy: int = 0
    """Its subject waits for it, and it takes one of its share's places on the way."""
    done: int = 0
    """Only its DELETE is missing."""
    in_flight: int = 0
    """It is in a call of the sink."""
    unsettled: int = 0
    """Its shard may not be handed over."""


STAGES: Final[dict[Stage, Counted]] = {
    "outbox": Counted(),
    "waiting": Counted(memory=1),
    "sent": Counted(memory=1, busy=1, in_flight=1, unsettled=1),
    "applying": Counted(memory=1, busy=1, unsettled=1),
    "burying": Counted(memory=1, busy=1, unsettled=1),
    "acknowledged": Counted(memory=1, done=1, unsettled=1),
    "settled": Counted(),
}

STEPS: Final[tuple[tuple[Stage, Stage], ...]] = (
    ("outbox", "waiting"),  # a read found it, and it may come into memory (`queues`)
    ("waiting", "sent"),  # it goes into a call of the sink
    ("waiting", "outbox"),  # its subject or its topic must wait, or its shard was lost
    ("sent", "acknowledged"),  # the broker has it
    ("sent", "applying"),  # there is no broker: a function is to run with its DELETE
    ("sent", "burying"),  # it was given up
    ("sent", "waiting"),  # it was not attempted, and is sent again
    ("sent", "outbox"),  # it failed, its topic was refused, or a copy of it was acknowledged
    ("applying", "settled"),  # function and DELETE have committed, or another publisher's have
    ("applying", "burying"),  # the function failed for the last time
    ("applying", "waiting"),  # the time to apply it is over
    ("applying", "outbox"),  # the function failed, or its shard was lost
    ("burying", "settled"),  # its burial has committed
    ("burying", "waiting"),  # its lease has ended, and may be renewed
    ("burying", "outbox"),  # its shard was lost
    ("acknowledged", "settled"),  # it was deleted
)

_CHANGES: Final = {
    stage: {
        to: Counted(*(b - a for a, b in zip(STAGES[stage], STAGES[to], strict=True)))
        for begin, to in STEPS
        if begin == stage
    }
    for stage in STAGES
}

_POSITION: Final = itemgetter(1)

_Position = tuple[str, bool, int]
"""A row as its successor names it: subject, whether both are replays, and position.

Replays follow each other only. A replay may have the position of an event that was
written after it, because replays do not move the position of the entity.
"""


class Rows:
    """The rows in memory: how many there are of each kind, and which ones reads may not bring.

    `on_idle` is called when a shard has no busy row any more, nor one to delete.
    """

    def __init__(self) -> None:
        self.shares = Shares()
        self._uses = self.shares.uses
        self.in_flight = 0
        self.on_idle: Callable[[], None] = _do_nothing
        self._unsettled = Counter[int]()
        self.known: dict[RowId, OutboxRow | Page] = {}
        """The rows that no read may bring: those in memory, and those settled a moment ago."""
        self._positions: dict[_Position, OutboxRow | Page] = {}
        self._settled: list[OutboxRow | Part] = []
        """The settled rows that are still known, the oldest first."""
        self._forgotten_next = 0
        """How many of them were settled before the last read began."""

    @property
    def busy_shards(self) -> set[int]:
        """The shards with a row on its way, or with one to apply, bury or delete."""
        return {shard for shard, rows in self._unsettled.items() if rows}

    def move(self, of: OutboxRow | Part, to: Stage) -> None:
        """Bring a row, or some of a page, to another stage.

        Raises `AssertionError` if it cannot be the next one.
        """
        change = _CHANGES[of.stage].get(to)
        if change is None:
            raise AssertionError(f"a row cannot go from stage {of.stage} to {to}")
        of.stage = to
        if change.memory > 0:
            self.know(of)
        elif to == "outbox":
            self.forget(of)
        elif change.memory:
            self._settled.append(of)
        self._count(change, of.shard, of.share, len(of) if isinstance(of, Part) else 1, of.size)

    def _count(self, change: Counted, shard: int, share: str, number: int, size: int) -> None:
        """Change the books for some rows of a shard and a share, with `size` bytes in all."""
        memory, busy, done, in_flight, unsettled = change
        if memory > 0:
            self.shares.add(share, number, size)
        if busy:
            self._uses[share].busy += busy * number
        if done:
            self._uses[share].done += done * number
        if in_flight:
            self.in_flight += in_flight * number
        if memory < 0:
            self.shares.remove(share, number, size)
        if unsettled:
            left = self._unsettled[shard] = self._unsettled[shard] + unsettled * number
            if not left:
                self.on_idle()

    # --- which rows reads may bring ------------------------------------------------------

    def knows_predecessor(self, row: OutboxRow) -> bool:
        """Whether the row that it waits for is in memory, or was settled a moment ago."""
        return (row.key, row.is_replay, row.previous_position) in self._positions

    def knows_position(self, key: str, position: int) -> bool:
        """Whether the row of a subject with this position is in memory, or was a moment ago."""
        return (key, False, position) in self._positions

    def begin_read(self) -> None:
        """Record that a read begins: its snapshot shows none of the rows settled so far."""
        self._forgotten_next = len(self._settled)

    def end_read(self) -> None:
        """Forget the rows that were settled before the read began, which has ended now."""
        for each in self._settled[: self._forgotten_next]:
            self.forget(each)
        del self._settled[: self._forgotten_next]
        self._forgotten_next = 0

    def know(self, of: OutboxRow | Part) -> None:
        """Let no read bring a row, and its successor follow."""
        owner, ids, positions = _names(of)
        self.known.update(dict.fromkeys(ids, owner))
        self._positions.update(dict.fromkeys(positions, owner))

    def forget(self, of: OutboxRow | Part) -> None:
        """Let reads bring a row again; another copy of it may be known."""
        owner, ids, positions = _names(of)
        for each in ids:
            if self.known.get(each) is owner:
                del self.known[each]
        for position in positions:
            if self._positions.get(position) is owner:
                del self._positions[position]

    def leave_page(self, page: Page, to: OutboxRow | Part) -> None:
        """Note that rows of a page are by themselves or in another one.

        Another copy of one may be known instead.
        """
        owner, ids, positions = _names(to)
        for each in ids:
            if self.known.get(each) is page:
                self.known[each] = owner
        for position in positions:
            if self._positions.get(position) is page:
                self._positions[position] = owner


def _names(
    of: OutboxRow | Part,
) -> tuple[OutboxRow | Page, Iterable[RowId], Iterable[_Position]]:
    """What stands for a row or for some of a page, their keys, and how successors name them."""
    if isinstance(of, Part):
        return of.page, of.ids, zip(of.keys, repeat(False), map(_POSITION, of.ids), strict=False)
    return of, (of.id,), ((of.key, of.is_replay, of.position),)


def _do_nothing() -> None:
    """Do nothing when a shard is idle."""
