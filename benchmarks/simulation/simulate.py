"""One run of a schedule, from the first write until nothing can be delivered any more."""

import random as global_random
from collections import Counter
from collections.abc import Collection
from functools import partial
from random import Random
from typing import Final

from tests.support.publisher.lease_tables import Tables as LeaseTables

from dsql_outbox.outbox.settings import TARGET_SHARDS
from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.session import CALL_TIMEOUT

from .broker import Broker
from .history import History
from .judge import Terms
from .machines import Restless, World
from .outbox_model import Tables
from .publishers import Publisher, Surroundings
from .schedule import CUTS, EARLY, GENTLE, SHORT, TOPICS, Fault, Schedule
from .watch import Watch
from .writers import Writers

PATIENCE: Final = 120.0
"""Seconds after the last fault and the last write in which everything must be done."""

_BOUND: Final = 2.0
"""Seconds in which a message of a healthy subject leaves, beside what the broker needs."""

_CUT: Final = 1.1
"""Seconds that a statement that was cut delays what it was to do."""

_LAST_DELETES: Final = 5.0
"""Seconds that a publisher that is stopped tries to delete what was acknowledged."""

_START: Final = 1.0
"""Seconds after its start when a single publisher relays."""

_RECOVERY: Final = 35.0
"""Seconds after the last fault when the publishers relay again, whatever happened."""

_LONGEST_REST: Final = 60.0
"""The same after a sweep that slow statements made long."""

_SLOWER: Final = 3.0
"""Seconds that conflicts may delay a transaction of a model."""

_COMMIT: Final = 0.01
"""Seconds from the discarding of the first messages of a target to its first publisher."""

_UNMAPPED: Final = 6.0
"""Seconds that a topic may be paused since the map failed once for one of its messages."""

_MOST_RINGS: Final = 2
"""How often one publisher hears a ring of one commit at most."""

_LATEST_RING: Final = 0.1
"""Seconds after the commit when the last ring comes."""

_LOOK: Final = 1.0
"""Seconds between two checks whether everything is done."""


def settings_of(schedule: Schedule) -> TunedSettings:
    """The settings of all publishers of a run."""
    return TunedSettings(
        batch_rows=5,
        attempts=3,
        backoff_base=0.5,
        backoff_cap=2,
        broker_patience=6,
        drain=4,
        on_dead_letter="block" if schedule.block else "release",
    )


def terms_of(schedule: Schedule) -> Terms:
    """The rules for a run of this schedule."""
    settings = settings_of(schedule)
    kinds = [fault.kind for fault in schedule.faults]
    harmed = not GENTLE.issuperset(kinds) or _leaves_rows(schedule.faults)
    is_whole = SHORT.issuperset(kinds) and len(schedule.clocks) == 1
    ready = _START if is_whole else _RECOVERY
    cuts = [_CUT + fault.length for fault in schedule.faults if fault.kind in CUTS]
    bound = _BOUND + 4 * schedule.slow + sum(cuts)
    return Terms(
        attempts=settings.attempts,
        backoff=settings.for_topic("").backoff,
        topics={f"t{fault.of}" for fault in schedule.faults if fault.kind in TOPICS},
        ready_at=schedule.calm_at + ready,
        bound=bound,
        late_bound=bound + (_LONGEST_REST if harmed else schedule.sweeps),
        harmed=harmed,
        unmapped={f"t{write.topic}" for write in schedule.writes if write.fate == "raises"},
        unmapped_bound=_UNMAPPED * sum(write.times * write.rows for write in schedule.writes),
    )


def terms_of_target(schedule: Schedule, number: int, opened_at: float) -> Terms:
    """The rules for one target of a run, which publishers relayed from `opened_at` on."""
    mine = schedule.of_target(number)
    terms = terms_of(mine)
    if number == 0:
        return terms
    target = schedule.targets[number - 1]
    hangs = sum(
        each.rows * min(each.ills, 2 * terms.attempts)
        for each in schedule.writes
        if each.ill == "hangs"
    )
    longer = _SLOWER + hangs * (CALL_TIMEOUT + 1) if target.kind == "model" else 0.0
    return terms._replace(
        unmapped=(),
        ready_at=max(terms.ready_at, opened_at + terms.ready_at - mine.calm_at),
        bound=terms.bound + longer,
        late_bound=terms.late_bound + longer,
        once=target.kind == "model",
        whole=target.at is None,
    )


def _leaves_rows(faults: Collection[Fault]) -> bool:
    """Whether a stopped publisher may have to leave acknowledged rows, which are sent again."""
    stopped = {fault.of for fault in faults if fault.kind == "stop"}
    cuts = [fault for fault in faults if fault.kind == "changes cut" and fault.of in stopped]
    return sum(cut.length for cut in cuts) >= EARLY * _LAST_DELETES


class Run:
    """One run of the real relay."""

    def __init__(self, schedule: Schedule) -> None:
        global_random.seed(schedule.seed)  # the library's jitter
        random = Random(schedule.seed)
        self._schedule = schedule
        self._world = world = World()
        number = 1 + len(schedule.targets)
        self.histories = [History() for _ in range(number)]
        """What happened to each target."""
        self._tables = Tables(lambda: world.now, *self.histories)
        self._brokers = [Broker(world, each, schedule.slow) for each in self.histories]
        self._brokers[0].has_map = schedule.has_map
        self._publishers = [self._publishers_of(number, random) for number in range(number)]
        self.opened_at = [0.0] * number
        """When publishers might relay each target."""
        self._writers = Writers(world, self._tables, self._brokers, schedule)
        self._rings = Random(schedule.seed)
        if schedule.seed % 2:  # the other half finds all rows by polling
            self._writers.ring = self._ring

    def _ring(self) -> None:
        """Ring as a writer does after a commit: late, twice, or for nobody."""
        for publisher in (each for publishers in self._publishers for each in publishers):
            for _ in range(self._rings.randrange(_MOST_RINGS + 1)):
                self._world.after(self._rings.uniform(0, _LATEST_RING), publisher.ring)

    def _publishers_of(self, target: int, random: Random) -> list[Publisher]:
        schedule, world, history = self._schedule, self._world, self.histories[target]
        leases = LeaseTables(schedule.shards, lambda: world.now, first=target * TARGET_SHARDS)
        around = Surroundings(
            world,
            self._tables,
            leases,
            self._brokers[target],
            history,
            Watch(lambda: world.now, self._tables, leases, history),
            settings_of(schedule),
            target,
            is_model=target > 0 and schedule.targets[target - 1].kind == "model",
        )
        return [
            Publisher(around, number, clock, Random(random.random()))
            for number, clock in enumerate(schedule.of_target(target).clocks)
        ]

    def __call__(self) -> History:
        """Do the run and return what happened to the default target."""
        schedule, world = self._schedule, self._world
        self._writers.start()
        for publisher in self._publishers[0]:
            world.after(schedule.start, publisher.start)
        for number, target in enumerate(schedule.targets, start=1):
            if target.at is None:
                self._writers.targets.add(number)
                self._run(number)
            else:
                world.after(target.at, self._open, number)
        for fault in schedule.faults:
            world.after(fault.at, self._strike, fault)
        try:
            self._go_on()
        except Restless as error:
            self.histories[0].faults.append(str(error))
        for number, history in enumerate(self.histories):
            history.end, history.left = world.now, self._tables.left(number)
            history.written = self._writers.written
            for publisher in self._publishers[number]:
                publisher.close()
        return self.histories[0]

    def _open(self, number: int) -> None:
        """Add a target as `Targets.add` does."""
        self._writers.targets.add(number)
        self._writers.when_ended(partial(self._discard, number))

    def _discard(self, number: int) -> None:
        self._tables.discard(number)
        self._world.after(_COMMIT, self._run, number)

    def _run(self, number: int) -> None:
        self.opened_at[number] = self._world.now
        for publisher in self._publishers[number]:
            self._world.after(0.0, publisher.start)

    def _go_on(self) -> None:
        schedule, world = self._schedule, self._world
        world.run(self._writers.done_at)
        last = PATIENCE + max(world.now, schedule.calm_at, schedule.topics_well_at)
        while world.now < last and not self._tables.is_done():
            world.run(world.now + _LOOK)

    def _strike(self, fault: Fault) -> None:
        kind, seconds = fault.kind, fault.length
        if kind == "topic away":
            self._last(f"t{fault.of}", self._brokers[fault.target].away, seconds)
            return
        if kind == "topic paused":
            self._last(f"t{fault.of}", self._tables.paused[fault.target], seconds)
            return
        publisher = self._publishers[fault.target][fault.of]
        if kind in {"crash", "stop", "pause"}:
            self.histories[fault.target].counts[kind] += 1
        if kind == "crash":
            publisher.crash(seconds)
        elif kind == "stop":
            publisher.stop()
        elif kind == "pause":
            publisher.pause(seconds)
        else:
            self._last(kind, publisher.troubles, seconds)

    def _last(self, name: str, troubles: Counter[str], seconds: float) -> None:
        """Let a trouble last for so long; two of a kind end with the later one."""

        def end() -> None:
            troubles[name] = max(0, troubles[name] - 1)

        troubles[name] += 1
        self._world.after(seconds, end)
