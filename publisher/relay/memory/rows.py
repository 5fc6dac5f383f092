"""The life of a row in memory: its stages, the steps between them, and their books. No I/O.

`STEPS` has all that can happen to a row, and `STAGES` what it counts as meanwhile. `Rows.move` is
the only way from one stage to another: it changes every book, and raises for any other step.
Back in the outbox, a row is read again when it can be sent.

A shard may be lost and taken again while one of its rows is on its way. Then the row is read
again, so there are two copies of it, each with a stage of its own.
"""

from collections import Counter
from collections.abc import Iterator
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

    def move(self, row: OutboxRow, to: Stage) -> None:
        """Bring a row to another stage. Raises `AssertionError` if it cannot be the next one."""
        change = _change(row.stage, to)
        row.stage = to
        if change.memory > 0:
            self.know(row)
        elif to == "outbox":
            self.forget(row)
        elif change.memory:
            self._settled.append(row)
        self._count(change, row.shard, row.share, 1, row.size)

    def move_part(self, part: Part, to: Stage) -> None:
        """Bring some rows of a page to another stage, as `move` does."""
        change = _change(part.stage, to)
        part.stage = to
        if change.memory > 0:
            self._know_part(part)
        elif to == "outbox":
            self._forget_part(part)
        elif change.memory:
            self._settled.append(part)
        page = part.page
        self._count(change, page.shard.number, page.topic, len(part), part.size)

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
            if isinstance(each, Part):
                self._forget_part(each)
            else:
                self.forget(each)
        del self._settled[: self._forgotten_next]
        self._forgotten_next = 0

    def know(self, row: OutboxRow) -> None:
        """Let no read bring a row, and its successor follow."""
        self.known[row.id] = self._positions[row.key, row.is_replay, row.position] = row

    def forget(self, row: OutboxRow) -> None:
        """Let reads bring a row again; another copy of it may be known."""
        if self.known.get(row.id) is row:
            del self.known[row.id]
        position = row.key, row.is_replay, row.position
        if self._positions.get(position) is row:
            del self._positions[position]

    def leave_page(self, page: Page, to: OutboxRow | Part) -> None:
        """Note that rows of a page are by themselves or in another one.

        Another copy of one may be known instead.
        """
        if isinstance(to, Part):
            now: OutboxRow | Page = to.page
            ids, positions = to.ids, _positions(to)
        else:
            now = to
            ids, positions = [to.id], iter([(to.key, to.is_replay, to.position)])
        known, by_position = self.known, self._positions
        for each in ids:
            if known.get(each) is page:
                known[each] = now
        for position in positions:
            if by_position.get(position) is page:
                by_position[position] = now

    def _know_part(self, part: Part) -> None:
        """Let no read bring rows of a page, and their successors follow."""
        page = part.page
        self.known.update(dict.fromkeys(part.ids, page))
        self._positions.update(dict.fromkeys(_positions(part), page))

    def _forget_part(self, part: Part) -> None:
        """Let reads bring rows of a page again, but those that left it."""
        page, known, positions = part.page, self.known, self._positions
        for each in part.ids:
            if known.get(each) is page:
                del known[each]
        for position in _positions(part):
            if positions.get(position) is page:
                del positions[position]


def _change(stage: Stage, to: Stage) -> Counted:
    """What a step changes. Raises `AssertionError` if it is none."""
    change = _CHANGES[stage].get(to)
    if change is None:
        raise AssertionError(f"a row cannot go from stage {stage} to {to}")
    return change


def _positions(part: Part) -> Iterator[_Position]:
    """The rows as their successors name them."""
    return zip(part.keys, repeat(False), map(_POSITION, part.ids), strict=False)


def _do_nothing() -> None:
    """Do nothing when a shard is idle."""
