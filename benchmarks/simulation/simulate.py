"""One run of a schedule, from the first write until nothing can be delivered any more."""

import random as global_random
from collections import Counter
from collections.abc import Callable, Collection
from random import Random
from typing import Final

from tests.support.publisher.lease_tables import Tables as LeaseTables

from dsql_outbox.publisher.settings import PublisherSettings

from .broker import Broker
from .history import History
from .judge import Terms
from .machines import Restless, World
from .outbox_model import Tables
from .publishers import Parts, Program, Publisher, Surroundings
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

_LOOK: Final = 1.0
"""Seconds between two checks whether everything is done."""


def settings_of(schedule: Schedule) -> PublisherSettings:
    """The settings of all publishers of a run."""
    return PublisherSettings(
        batch_rows=5,
        idle_min=0.25,
        head_interval=schedule.sweeps,
        attempts=3,
        backoff_base=0.5,
        backoff_cap=2,
        breaker_failures=3,
        breaker_open=2,
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
    )


def _leaves_rows(faults: Collection[Fault]) -> bool:
    """Whether a stopped publisher may have to leave acknowledged rows, which are sent again."""
    stopped = {fault.of for fault in faults if fault.kind == "stop"}
    cuts = [fault for fault in faults if fault.kind == "changes cut" and fault.of in stopped]
    return sum(cut.length for cut in cuts) >= EARLY * _LAST_DELETES


class Run:
    """One run; `make` makes a publisher of its parts."""

    def __init__(self, schedule: Schedule, make: Callable[[Parts], Program]) -> None:
        global_random.seed(schedule.seed)  # the library's jitter
        random = Random(schedule.seed)
        self._schedule = schedule
        self._world = world = World()
        self._history = history = History()
        self._tables = Tables(lambda: world.now, history)
        self._broker = Broker(world, history, schedule.slow)
        leases = LeaseTables(schedule.shards, lambda: world.now)
        settings = settings_of(schedule)
        watch = Watch(lambda: world.now, self._tables, leases, history)
        around = Surroundings(
            world, self._tables, leases, self._broker, history, watch, settings, make
        )
        self._publishers = [
            Publisher(around, number, clock, Random(random.random()))
            for number, clock in enumerate(schedule.clocks)
        ]
        self._writers = Writers(world, self._tables, self._broker, schedule)

    def __call__(self) -> History:
        """Do the run and return what happened."""
        schedule, world = self._schedule, self._world
        self._writers.start()
        for publisher in self._publishers:
            world.after(schedule.start, publisher.start)
        for fault in schedule.faults:
            world.after(fault.at, self._strike, fault)
        try:
            self._go_on()
        except Restless as error:
            self._history.faults.append(str(error))
        self._history.end, self._history.left = world.now, self._tables.left()
        for publisher in self._publishers:
            publisher.close()
        return self._history

    def _go_on(self) -> None:
        schedule, world = self._schedule, self._world
        world.run(self._writers.done_at)
        last = PATIENCE + max(world.now, schedule.calm_at, schedule.topics_well_at)
        while world.now < last and not self._tables.is_done():
            world.run(world.now + _LOOK)

    def _strike(self, fault: Fault) -> None:
        kind, seconds = fault.kind, fault.length
        if kind == "topic away":
            self._last(f"t{fault.of}", self._broker.away, seconds)
            return
        if kind == "topic paused":
            self._last(f"t{fault.of}", self._tables.paused, seconds)
            return
        publisher = self._publishers[fault.of]
        if kind in {"crash", "stop", "pause"}:
            self._history.counts[kind] += 1
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
