"""Many publishers and one database in simulated time: the code of the beat, all else a model.

A relay is a row on its way in each shard that is owned, sent again and again.

Everything that can go wrong between a publisher and its leases can be made to
go wrong: clocks drift and differ, statements are slow, are lost before or after
they were applied or are applied long after they were given up, processes stand
still or die. Overlaps can only begin at an event, so a check after each is exact.
"""

import heapq
import math
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from tests.support.publisher.lease_tables import Statement, Tables

from dsql_outbox.publisher.leases.ownership import Ownership
from dsql_outbox.publisher.leases.protocol import Beats
from dsql_outbox.publisher.tuned_settings import TunedSettings

SETTINGS = TunedSettings(lease=10, broker_patience=4, drain=3)
SHORT = TunedSettings(lease=8, broker_patience=4, drain=3)
LONG = TunedSettings(lease=20, broker_patience=4, drain=3)
DRIFT = 0.05
SKEW = 1.4  # seconds between the clocks of two nodes of the database

LATENCY = 0.01
_CALL = 0.05  # seconds that a row is on its way, until it is deleted
_IDLE = 0.25  # seconds between two rows of a shard


class NoAnswer(Exception):
    """A statement was given up."""


@dataclass(frozen=True)
class Fate:
    """What happens to one statement: seconds until it is applied and until it is answered.

    Infinity: never. It is given up after `renew` seconds on the publisher's clock,
    unless the publisher stands still, for `paused` seconds, from when it sent it.
    """

    applied: float = LATENCY
    answered: float = 2 * LATENCY
    paused: float = 0.0


@dataclass(eq=False)
class Member:
    """One incarnation of a publisher: a clock, the code under test, a relay and a broker."""

    name: str
    rate: float
    offset: float
    settings: TunedSettings = SETTINGS
    paused_until: float = 0.0
    alive: bool = True
    sink_fails: bool = False
    progresses: bool = True
    next_call: float = _CALL
    fates: deque[Fate] = field(default_factory=deque)
    waiting: list[Callable[[], None]] = field(default_factory=list)
    """What it will do first when it runs again."""
    on_way: dict[int, int] = field(default_factory=dict)
    """The shards with a row that was sent and is not deleted, with the epoch it was read under."""

    def __post_init__(self) -> None:
        self.own = Ownership(self.name, self.settings)
        self.beats: Beats | None = None
        self.beating: Coroutine[Any, Any, float] | None = None

    def clock(self, time: float) -> float:
        """What its clock says at a time of the simulation."""
        return self.offset + self.rate * time

    def rights(self, time: float) -> set[int]:
        """Shards that it may send messages of, or has one of on its way."""
        now = self.clock(time)
        sent = {s for s, epoch in self.on_way.items() if now < self.own.deadline(s, epoch)}
        return sent | self.own.usable(now).keys()


class Cluster:
    """The simulation; `time` is true time in seconds."""

    def __init__(self, shards: int, database_rate: float, *, is_plain: bool = False) -> None:
        self.time = 0.0
        self.skew = 0.0
        self.stepped_back = 0.0
        self.statements = 0
        self.members: list[Member] = []
        self.gaps: list[tuple[float, float]] = []
        """Since when and for how long a shard had no owner, after the faults; once it has one."""
        self._alone_since: dict[int, float] = {}
        self.tables = Tables(
            shards,
            lambda: self.time * database_rate + self.skew - self.stepped_back,
            is_plain=is_plain,
        )
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._stuck: list[Callable[[], None]] = []
        self._numbers = count()

    # --- what a test does --------------------------------------------------------------

    def start(
        self, rate: float = 1.0, offset: float = 0.0, settings: TunedSettings = SETTINGS
    ) -> Member:
        """Start a publisher."""
        member = Member(f"p{next(self._numbers)}", rate, offset, settings)
        self.tables.settings[member.name] = settings
        self.tables.on_way[member.name] = member.on_way
        self.members.append(member)
        member.beats = Beats(
            member.own,
            self.tables,
            lambda: member.clock(self.time),
            busy=lambda: member.on_way,
            progresses=lambda: member.progresses,
        )
        self._at(0, lambda: self._beat(member), member)
        self._at(0, lambda: self._send_rows(member), member)
        return member

    def crash(self, member: Member) -> None:
        """End it without a word; what it has sent may still be applied."""
        member.alive = False
        self.members.remove(member)

    def stop(self, member: Member) -> None:
        """SIGTERM."""
        member.own.stop(member.clock(self.time))
        self._poke(member)

    def pause(self, member: Member, seconds: float) -> None:
        """SIGSTOP, or its machine is suspended; its clock goes on."""
        member.paused_until = max(member.paused_until, self.time + seconds)
        self._at(seconds, lambda: self._resume(member))

    def run(self, seconds: float) -> None:
        """Let time go by."""
        end = self.time + seconds
        while self._events and self._events[0][0] <= end:
            self.time, _, event = heapq.heappop(self._events)
            event()
            self.check()
        self.time = end
        self.check()

    def heal(self) -> None:
        """From now on nothing fails; what is on the wire arrives at once."""
        for apply in self._stuck:
            apply()
        self._stuck.clear()
        self.gaps.clear()
        self._alone_since.clear()
        self.check()
        for member in self.members:
            member.fates.clear()
            member.sink_fails = False
            member.progresses = True
            member.next_call = _CALL
            member.paused_until = 0.0
            self._resume(member)
            for shard in list(member.on_way):
                self._at(0, partial(self._settle, member, shard), member)

    def check(self) -> None:
        """No shard has two publishers inside their deadlines."""
        owners: defaultdict[int, list[str]] = defaultdict(list)
        for member in self.members:
            for shard in member.rights(self.time):
                owners[shard].append(member.name)
        shared = {shard: names for shard, names in owners.items() if len(names) > 1}
        assert not shared, f"at {self.time:.3f} s, shards with two owners: {shared}"
        for shard in self.tables.leases:
            if shard not in owners:
                self._alone_since.setdefault(shard, self.time)
            elif shard in self._alone_since:
                since = self._alone_since.pop(shard)
                self.gaps.append((since, self.time - since))

    @property
    def has_unknown_owners(self) -> bool:
        """Whether a lease belongs to a publisher that has ended and is not announced."""
        known = self.tables.seen_at.keys() | {member.name for member in self.members}
        return any(row.owner not in {None, *known} for row in self.tables.leases.values())

    @property
    def has_announced_dead(self) -> bool:
        """Whether a publisher that has ended is announced."""
        announced = self.tables.seen_at.keys() - self.tables.waiting
        return not announced <= {member.name for member in self.members}

    def rights(self) -> dict[str, set[int]]:
        """The shards of each publisher."""
        return {member.name: member.rights(self.time) for member in self.members}

    # --- how it runs -------------------------------------------------------------------

    def _at(self, delay: float, event: Callable[[], None], member: Member | None = None) -> None:
        """Do something later; what a publisher does waits while it stands still."""

        def run() -> None:
            if member is None:
                event()
            elif member.alive and self.time < member.paused_until:
                member.waiting.append(event)
            elif member.alive:
                event()

        heapq.heappush(self._events, (self.time + delay, next(self._numbers), run))

    def _resume(self, member: Member) -> None:
        if member.alive and self.time >= member.paused_until:
            waiting, member.waiting = member.waiting, []
            for event in waiting:
                self._at(0, event, member)

    def _beat(self, member: Member) -> None:
        if member.beating is None:
            assert member.beats is not None
            member.beating = member.beats.beat()
            self._go_on(member, lambda beating: beating.send(None))

    def _go_on(
        self, member: Member, step: Callable[[Coroutine[Any, Any, float]], Statement]
    ) -> None:
        """Run the beat up to its next statement, or to its end."""
        assert member.beating is not None
        try:
            statement = step(member.beating)
        except StopIteration as done:
            self._rest(member, done.value)
        except NoAnswer:
            self._rest(member, member.settings.renew / 4)
        else:
            self._ask(member, statement)

    def _rest(self, member: Member, seconds: float) -> None:
        member.beating = None
        if member.own.is_stopping and not member.own._held:
            self.crash(member)
        else:
            self._at(seconds / member.rate, lambda: self._beat(member), member)

    def _ask(self, member: Member, statement: Statement) -> None:
        self.statements += 1
        fate = member.fates.popleft() if member.fates else Fate()
        patience = member.settings.renew / member.rate
        if fate.paused:
            self.pause(member, fate.paused)
        answer: list[Any] = []
        settled: list[bool] = []

        def apply() -> None:
            if not answer:
                answer.append(statement.apply())

        def end(step: Callable[[Coroutine[Any, Any, float]], Statement]) -> None:
            if not settled:
                settled.append(True)
                self._go_on(member, step)

        if fate.applied < math.inf:
            self._at(fate.applied, apply)
            self._stuck.append(apply)
        if max(fate.applied, fate.answered) <= patience:
            delay = max(fate.applied, fate.answered)
            self._at(delay, lambda: end(lambda beating: beating.send(answer[0])), member)
        else:
            self._at(patience, lambda: end(lambda beating: beating.throw(NoAnswer())), member)

    def _send_rows(self, member: Member) -> None:
        """Send a row of each shard that it owns and that has none on its way."""
        now = member.clock(self.time)
        for shard, epoch in member.own.usable(now).items():
            if shard not in member.on_way:
                member.on_way[shard] = epoch
                self._at(member.next_call, partial(self._settle, member, shard), member)
        member.next_call = _CALL
        if member.sink_fails and member.on_way:
            member.own.note_sink_failure(now)
        self._at(_IDLE, lambda: self._send_rows(member), member)

    def _settle(self, member: Member, shard: int) -> None:
        """The row of a shard is answered and deleted, or was cut off at its deadline."""
        if member.on_way.pop(shard, None) is not None and not member.sink_fails:
            member.own.note_sink_answer()
        if member.own.leaving - member.on_way.keys():
            self._poke(member)

    def _poke(self, member: Member) -> None:
        self._at(0, lambda: self._beat(member), member)
