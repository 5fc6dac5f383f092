"""True time, the events at its moments, and machines with a clock each."""

import heapq
import math
from collections.abc import Callable
from typing import Any, Final

from .virtual_loop import VirtualLoop

_STEP: Final = 1e-6
"""Seconds that a step of a loop takes. So a task that waits for nothing lets time go by."""

_MOST_STEPS: Final = 100_000
"""The most steps of all machines in a run. Some thousand are usual."""


class Restless(Exception):
    """A machine works without a rest: it makes so many steps that time hardly goes by."""


class World:
    """True time in seconds, from 0. Events outside of the machines run by `after`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.machines: list[Machine] = []
        self._moments: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, seconds: float, act: Callable[..., object], *args: Any) -> None:
        """Do something after `seconds`."""
        self._count += 1
        heapq.heappush(self._moments, (self.now + seconds, self._count, act, args))

    def run(self, until: float) -> None:
        """Let time go by until `until`. Raises `Restless` when too much happens."""
        moments = self._moments
        while True:
            due, machine = math.inf, None
            for each in self.machines:
                if (when := each.due()) < due:
                    due, machine = when, each
            moment = moments[0][0] if moments else math.inf
            if min(due, moment) > until:
                break
            if moment <= due or machine is None:
                _, _, act, args = heapq.heappop(moments)
                self.now = max(self.now, moment)
                act(*args)
            else:
                self.now = max(self.now, due) + _STEP
                self.steps += 1
                if self.steps > _MOST_STEPS:
                    raise Restless(f"{self.steps} steps of machines until {self.now:.3f} s")
                machine.loop.step()
        self.now = max(self.now, until)


class Machine:
    """One process on one machine: a loop, whose clock runs `rate` times as fast as true time."""

    def __init__(self, world: World, rate: float, offset: float) -> None:
        self._world = world
        self.rate = rate
        self._offset = offset
        self._still_until = 0.0
        self.is_alive = True
        self.loop = VirtualLoop(self.clock)  # type: ignore[abstract]  # the rest is refused
        world.machines.append(self)

    def clock(self) -> float:
        """Seconds since it was started; the time of its loop."""
        return self._offset + self.rate * self._world.now

    def due(self) -> float:
        """When its loop has something to run, in true time."""
        return max((self.loop.due() - self._offset) / self.rate, self._still_until)

    @property
    def is_still(self) -> bool:
        """Whether it runs nothing now: it stands still, or has died."""
        return not self.is_alive or self._world.now < self._still_until

    def stand_still(self, seconds: float) -> None:
        """Run nothing for so long, as after SIGSTOP; the clock goes on."""
        self._still_until = max(self._still_until, self._world.now + seconds)

    def die(self) -> None:
        """Never run anything again."""
        if self.is_alive:
            self.is_alive = False
            self._world.machines.remove(self)
