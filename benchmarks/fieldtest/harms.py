"""The six harms: what is done to a relay, and when, as a seed decides."""

import os
import random
import signal
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple, Protocol

from .adapters.broker import NO_TOPIC, REFUSED, STORED
from .adapters.program import LEASE
from .schedule import TOPICS


class Stage(Protocol):
    """What a harm may do in a trial."""

    stored: list[int]

    def note(self, text: str) -> None:
        """Write a line to the log of the trial."""
        ...

    def start_relay(self) -> None:
        """Start one more process of the relay."""
        ...

    def restart_server(self) -> None:
        """Kill the database's server, and start it on the same data."""
        ...

    def start_writer(self) -> None:
        """Write the events while the relay runs, some of them in transactions that stay open."""
        ...

    def is_written(self) -> bool:
        """Whether that has ended."""
        ...


class Play:
    """One harm in one trial: this one does nothing. `step` is called every few milliseconds."""

    def __init__(self, stage: Stage, chosen: random.Random, number: int) -> None:
        self._stage = stage
        self._chosen = chosen
        self._number = number
        self.is_over = False

    def outcome(self, topic: str, number: int) -> str:  # noqa: ARG002 - for those that refuse
        """What the broker answers for a message."""
        return STORED

    def after(self, pid: int) -> None:
        """A message of this process was stored, and the process does not know it yet."""

    def step(self) -> None:
        """Do what is to be done now, and say by `is_over` whether it was the last thing."""
        self.is_over = True

    def _places(self, times: int) -> list[int]:
        """Counts of stored messages, in the middle of the trial."""
        return sorted(self._chosen.sample(range(self._number // 10, self._number * 3 // 4), times))


class LateCommit(Play):
    """Some transactions stay open after their last statement while others commit."""

    _is_started = False

    def step(self) -> None:
        if not self._is_started:
            self._is_started = True
            self._stage.start_writer()
        self.is_over = self._stage.is_written()


class Kill(Play):
    """The relay is killed when the broker has stored a message, before it has the confirm."""

    def __init__(self, stage: Stage, chosen: random.Random, number: int) -> None:
        super().__init__(stage, chosen, number)
        self._left = self._places(3)
        self._killed: set[int] = set()

    def after(self, pid: int) -> None:
        is_due = self._left and len(self._stage.stored) >= self._left[0]
        if is_due and pid not in self._killed:  # the rest of its last request is stored as well
            del self._left[0]
            self._killed.add(pid)
            self._stage.note(f"SIGKILL {pid}")
            os.kill(pid, signal.SIGKILL)

    def step(self) -> None:
        self.is_over = not self._left


class Refusal(Play):
    """The broker refuses one message of fifty, once each; it stores the others of a request."""

    def __init__(self, stage: Stage, chosen: random.Random, number: int) -> None:
        super().__init__(stage, chosen, number)
        self._refused = set(chosen.sample(range(number), number // 50))

    def outcome(self, topic: str, number: int) -> str:  # noqa: ARG002
        if number not in self._refused:
            return STORED
        self._refused.remove(number)
        return REFUSED

    def step(self) -> None:
        self.is_over = not self._refused


class Pause(Play):
    """The relay is stopped before it has a confirm; a second one starts; the first goes on.

    It goes on after one to two times the lease, when the second one has sent something, and
    after four times the lease at the latest.
    """

    def __init__(self, stage: Stage, chosen: random.Random, number: int) -> None:
        super().__init__(stage, chosen, number)
        self._place = number // 10 + chosen.randrange(number // 4)
        self._seconds = LEASE * chosen.uniform(1.0, 2.0)
        self._stopped: int | None = None
        self._at = 0.0
        self._has_second = False
        self._by_others = 0

    def after(self, pid: int) -> None:
        if self._stopped is None and len(self._stage.stored) >= self._place:
            self._stopped, self._at = pid, monotonic()
            self._stage.note(f"SIGSTOP {pid}")
            os.kill(pid, signal.SIGSTOP)
        elif pid != self._stopped:
            self._by_others += 1

    def step(self) -> None:
        if self._stopped is None or self.is_over:
            return
        if not self._has_second:
            self._has_second = True
            self._by_others = 0
            self._stage.start_relay()
        elapsed = monotonic() - self._at
        if elapsed > self._seconds and (self._by_others or elapsed > 4 * LEASE):
            self._stage.note(f"SIGCONT {self._stopped}")
            os.kill(self._stopped, signal.SIGCONT)
            self.is_over = True


class MissingTopic(Play):
    """The topic of half of the keys does not exist until three seconds after the first attempt."""

    _SECONDS = 3.0

    def __init__(self, stage: Stage, chosen: random.Random, number: int) -> None:
        super().__init__(stage, chosen, number)
        self._asked = 0.0

    def outcome(self, topic: str, number: int) -> str:  # noqa: ARG002
        if topic != TOPICS[1] or self.is_over:
            return STORED
        self._asked = self._asked or monotonic()
        return NO_TOPIC

    def step(self) -> None:
        if self._asked and not self.is_over and monotonic() - self._asked > self._SECONDS:
            self._stage.note(f"the topic {TOPICS[1]} is made")
            self.is_over = True


class FailOver(Play):
    """The database's server is killed twice with all its connections, and started again."""

    def __init__(self, stage: Stage, chosen: random.Random, number: int) -> None:
        super().__init__(stage, chosen, number)
        self._left = self._places(2)

    def step(self) -> None:
        if self._left and len(self._stage.stored) >= self._left[0]:
            del self._left[0]
            self._stage.note("the server is killed")
            self._stage.restart_server()
            self._stage.note("the server is back")
        self.is_over = not self._left


class Harm(NamedTuple):
    """A harm, and what the page says of it.

    Before most of them all events have been written. In one of them two relays run.
    """

    name: str
    title: str
    what: str
    play: Callable[[Stage, random.Random, int], Play]
    written_before: bool = True
    relays: int = 1


HARMS = (
    Harm(
        "late-commit", "a transaction that commits late",
        "24 transactions stay open for 0.2 to 0.8 s behind their last statement, while three other "
        "connections commit rows with higher positions",
        LateCommit, written_before=False,
    ),
    Harm(
        "kill", "kill -9 between send and mark",
        "three times, when the broker has stored a message and has not confirmed it, the relay "
        "gets SIGKILL. It is started again 0.3 s later",
        Kill,
    ),
    Harm(
        "refusal", "a batch that is refused in part",
        "the broker refuses 40 of the 2,000 messages, once each, and stores the others of the same "
        "request",
        Refusal,
    ),
    Harm(
        "pause", "the holder of a lease, stopped beyond it",
        f"before it has a confirm, the relay gets SIGSTOP, and a second one is started. The first "
        f"gets SIGCONT after {LEASE} to {2 * LEASE} s, one to two times the lease",
        Pause, relays=2,
    ),
    Harm(
        "topic", "a topic that is missing, and made later",
        "the topic of half of the keys does not exist until 3 s after the first attempt",
        MissingTopic,
    ),
    Harm(
        "fail-over", "a database that fails over",
        "twice the database's server is killed, and started again on the same data. No standby is "
        "promoted",
        FailOver,
    ),
)  # fmt: skip
