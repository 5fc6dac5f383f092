"""Model writers: transactions that take their positions before they commit, and replays."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from dsql_outbox.operations.replay_positions import Candidate, Positions
from dsql_outbox.outbox.settings import TARGET_SHARDS
from dsql_outbox.publisher.relay.store import SubjectName
from dsql_outbox.schema.outbox_rows import RowId

from .broker import Broker, Illness
from .machines import World
from .outbox_model import NewRow, Tables
from .schedule import TOPICS, Replay, Schedule, Write

SUBJECT_TYPE: Final = "S"

_PAUSE: Final = 0.001
"""Seconds between two transactions of a subject; the second one waits for the first."""

_LOOK: Final = 0.05
"""Seconds between two looks at the transactions that are open."""

_SOON: Final = 0.9
"""Seconds: the relay looks for new rows where transactions began a second ago or later."""


class Writers:
    """Carries out the writes and replays of a schedule."""

    def __init__(
        self,
        world: World,
        tables: Tables,
        brokers: Sequence[Broker],
        schedule: Schedule,
    ) -> None:
        self._world = world
        self._tables = tables
        self._brokers = brokers
        self._schedule = schedule
        self.written: Counter[SubjectName] = Counter()
        """The last version of each subject that was committed."""
        self.targets = {0}
        """The targets that are there now."""
        self.ring: Callable[[], None] | None = None
        """What each commit calls, if the writers ring."""
        self._known: dict[int, frozenset[int]] = {}
        """The targets that each write knows."""
        self._open: set[int] = set()
        """The writes whose transaction is open."""
        self._sick_topics = {(f.target, f.of) for f in schedule.faults if f.kind in TOPICS}
        self._free_at: dict[int, float] = {}
        self._versions: Counter[int] = Counter()
        self._last: Counter[int] = Counter()
        self._first: dict[int, NewRow] = {}
        self._replays: Counter[int] = Counter()
        self._places: Counter[int] = Counter()
        self._events = 0
        self.done_at = 0.0
        """When the last transaction ends, in seconds."""

    def start(self) -> None:
        """Plan everything; the transactions of one subject follow each other."""
        writes = sorted(enumerate(self._schedule.writes), key=lambda each: each[1].at)
        for number, write in writes:
            at = max(write.at, self._free_at.get(write.subject, 0.0))
            self._free_at[write.subject] = at + write.late + _PAUSE
            self._world.after(max(0.0, write.at - write.early), self._look, number)
            self._world.after(at, self._begin, number, write)
            self.done_at = max(self.done_at, at + write.late)
        for replay in self._schedule.replays:
            self._world.after(replay.at, self._replay, replay)
            self.done_at = max(self.done_at, replay.at)

    def when_ended(self, act: Callable[[], None]) -> None:
        """Do something when each transaction that is open now has ended."""
        self._wait(frozenset(self._open), act)

    def _wait(self, waited_for: frozenset[int], act: Callable[[], None]) -> None:
        if waited_for & self._open:
            self._world.after(_LOOK, self._wait, waited_for, act)
        else:
            act()

    def _look(self, number: int) -> None:
        """Begin a transaction, whose snapshot has these targets."""
        self._known[number] = frozenset(self.targets)
        self._open.add(number)

    def _begin(self, number: int, write: Write) -> None:
        """Take positions; the commit makes the rows visible."""
        now = self._tables.clock() + round(write.ahead * 1_000_000)
        rows = [self._row(write, now, n) for n in range(1, write.rows + 1)]
        self._world.after(write.late, self._commit, number, write, rows)

    def _row(self, write: Write, now: int, number: int) -> NewRow:
        fate = None if number % write.every else write.fate
        subject, self._events = write.subject, self._events + 1
        self._versions[subject] += 1
        previous, position = self._last[subject], max(now, self._last[subject] + 1)
        self._last[subject] = position
        return NewRow(
            RowId(subject % self._schedule.shards, position, str(UUID(int=self._events))),
            previous,
            SubjectName(SUBJECT_TYPE, str(subject)),
            self._versions[subject],
            f"t{write.topic}",
            replay=0,
            is_late=write.late > _SOON,
            is_sick=bool(write.retries or write.rejected or write.broken)
            or fate in {"raises", "refuses"}
            or (0, write.topic) in self._sick_topics,
            is_broken=write.broken,
            fate=fate,
        )

    def _commit(self, number: int, write: Write, rows: list[NewRow]) -> None:
        self._first[number] = rows[0]
        self._open.discard(number)
        for row in rows:
            self.written[row.subject] = row.version
            for target in sorted(self._known[number]):
                self._insert(self._copy(row, target, write), target, write)
        if self.ring is not None:
            self.ring()

    def _copy(self, row: NewRow, target: int, write: Write) -> NewRow:
        """The message of a target. Each one has its own troubles."""
        if target == 0:
            return row
        is_model = self._schedule.targets[target - 1].kind == "model"
        is_sick = write.broken or (is_model and write.ill is not None)
        is_sick |= (target, write.topic) in self._sick_topics
        shard = row.id.shard + target * TARGET_SHARDS
        target_id = row.id._replace(shard=shard)
        return row._replace(id=target_id, is_sick=is_sick, fate=None)

    def _replay(self, replay: Replay) -> None:
        """Write an event again under a new key, unless its message still waits."""
        first = self._first.get(replay.write)
        if first is None or any(
            row.event_id == first.id.event_id and row.shard < TARGET_SHARDS
            for row in self._tables.rows
        ):
            return
        subject = self._schedule.writes[replay.write].subject
        candidate = Candidate(
            event_id=UUID(first.id.event_id),
            key=f"{SUBJECT_TYPE}/{subject}",
            type="",
            topic=first.topic,
            shard=first.id.shard,
            at=datetime.fromtimestamp(0, UTC),
            headers={},
            size=0,
            last_position=max(self._last[subject], self._places[replay.write]),
            replays=self._replays[replay.write],
            waiting=False,
            now_us=self._tables.clock(),
        )
        (placed,) = Positions().place([candidate])
        self._replays[replay.write] += 1
        key = RowId(first.id.shard, placed.position, first.id.event_id)
        self._places[replay.write] = placed.position
        again = first._replace(id=key, previous=0, replay=placed.number, is_late=False)
        self._insert(again, 0, self._schedule.writes[replay.write])

    def _insert(self, row: NewRow, target: int, write: Write) -> None:
        broker = self._brokers[target]
        broker.expect(row.id)
        if target == 0 and not row.replay and (write.retries or write.rejected):
            broker.ill[row.id] = Illness(write.retries, write.rejected)
        if row.fate is not None:
            broker.fates[row.id] = (row.fate, write.times)
        if target and write.ill is not None:
            broker.functions[row.id] = (write.ill, write.ills)
        self._tables.insert(row)
