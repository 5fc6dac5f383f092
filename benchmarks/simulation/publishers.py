"""Publishers as processes on machines: started, crashed, stopped, paused, started again."""

import logging
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Final

import psycopg
from tests.support.publisher.lease_tables import Tables as LeaseTables

from dsql_outbox.outbox.failure import LASTING, kind_of
from dsql_outbox.publisher.tuned_settings import TunedSettings

from .applied import Function
from .broker import Broker, ModelSink
from .history import History, Struck
from .machines import Machine, World
from .mapped import ModelMap
from .outbox_model import EPOCH, Tables
from .relay_program import Parts, RelayProgram
from .schedule import Clock
from .statements import ModelLeaseTable, ModelStore
from .watch import Watch
from .wire import Line, Wire

logger: Final = logging.getLogger(__name__)

_RESTART: Final = 1.0
"""Seconds after which a publisher that ended by itself is started again."""


@dataclass(frozen=True)
class Surroundings:
    """The shared parts of all publishers."""

    world: World
    tables: Tables
    leases: LeaseTables
    broker: Broker
    history: History
    watch: Watch
    settings: TunedSettings
    target: int = 0
    is_model: bool = False


class Publisher:
    """One publisher with its successors: each start is a new process, with a new name."""

    def __init__(self, around: Surroundings, number: int, clock: Clock, random: Random) -> None:
        self._around = around
        self._number = number
        self._clock = clock
        self._random = random
        self._starts = 0
        self._name = ""
        self._machine: Machine | None = None
        self._program: RelayProgram | None = None
        self._past: list[Machine] = []
        self.troubles: Counter[str] = Counter()
        """How many faults of each kind last now."""

    def start(self) -> None:
        """Start a process, unless one runs."""
        if self._machine is not None:
            return
        self._starts += 1
        of = f" of target {self._around.target}" if self._around.target else ""
        name = f"p{self._number}.{self._starts}{of}"
        machine = Machine(self._around.world, self._clock.rate, self._clock.offset)
        self._machine, self._name = machine, name
        self._note("starts")
        machine.loop.call_soon(self._run, machine, self._parts(name, machine))

    def crash(self, away: float) -> None:
        """End the process without a word; start it again after `away` seconds."""
        if self._machine is not None:
            self._note("is killed")
            self._end(self._machine)
            self._around.world.after(away, self.start)

    def stop(self) -> None:
        """Do what SIGTERM does."""
        if self._machine is not None and self._program is not None:
            self._note("is asked to stop")
            self._machine.loop.call_soon(self._program.stop)

    def ring(self) -> None:
        """Do what a ring of a writer does, if it is heard."""
        if self._machine is not None and self._program is not None:
            self._machine.loop.call_soon(self._program.ring)

    def pause(self, seconds: float) -> None:
        """Suspend the process; its clocks go on."""
        if self._machine is not None:
            self._note(f"stands still for {seconds:g} s")
            self._machine.stand_still(seconds)

    def close(self) -> None:
        """End all processes, and the remains of those that crashed."""
        if self._machine is not None:
            self._end(self._machine)
        for machine in self._past:
            machine.loop.close()

    def _note(self, what: str) -> None:
        """Note a step of the process that runs."""
        history, now = self._around.history, self._around.world.now
        history.struck.append(Struck(now, self._name, what))

    def _end(self, machine: Machine) -> None:
        machine.die()
        self._past.append(machine)
        self._around.history.faults += machine.loop.errors
        self._machine = self._program = None

    def _run(self, machine: Machine, parts: Parts) -> None:
        self._program = program = RelayProgram(parts)
        name = parts.name

        async def run() -> None:
            try:
                await program.run()
            except psycopg.Error as error:
                if program.has_begun and kind_of(error) not in LASTING:
                    self._around.history.faults.append(f"{name} ended: {error!r}")
                logger.debug("%s ended: %s", name, error)
            except Exception as error:  # noqa: BLE001 - any other one is a finding
                self._around.history.faults.append(f"{name} ended: {error!r}")
            if machine.is_alive:
                self._note("has ended")
                self._around.world.after(_RESTART, self._restart, machine)

        machine.loop.create_task(run(), name=name)

    def _restart(self, machine: Machine) -> None:
        if self._machine is machine:
            self._end(machine)
            self.start()

    def _parts(self, name: str, machine: Machine) -> Parts:
        around, world = self._around, self._around.world
        around.leases.settings[name] = around.settings

        def strike(what: str) -> None:
            around.history.strike(world.now, name, what)

        line = Line(world, machine, self.troubles, strike)
        around.watch.starts(name, machine)
        return Parts(
            name=name,
            store=ModelStore(
                around.tables,
                Wire(line, self._part(), "statements"),
                around.watch,
                name,
                lambda: world.now,
                target=around.target,
            ),
            sink=ModelSink(around.broker, line, name, around.watch, self._part()),
            apply=Function(around.broker, name) if around.is_model else None,
            map=ModelMap(around.broker, name) if around.broker.has_map else None,
            leases=ModelLeaseTable(
                around.leases, Wire(line, self._part(), "leases"), around.settings.renew
            ),
            settings=around.settings,
            boot_clock=machine.clock,
            host_clock=lambda: EPOCH + world.now + self._clock.host,
        )

    def _part(self) -> Random:
        """Chance of its own for each part, so that a change of one changes no other."""
        return Random(self._random.random())
