"""What a relaying process knows of its own health: pure, told facts and the time.

Two questions, since their answers call for different things. "Alive?" is no
only when a restart would help: the relay gave no sign of life though everything
that it needs is there. "Ready?" is no whenever nothing is relayed, whoever is
to blame. The reasons are fixed texts: who asks may be anybody.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

import msgspec

from dsql_outbox.observability import Fact, RoundEnded

OK: Final = "ok"
SILENT: Final = 30.0
"""Seconds without a sign of life, after which the relay counts as not at work."""

STUCK: Final = 60.0
"""Seconds of the same, with database and broker there, after which a restart is in order."""


class Alive(msgspec.Struct, frozen=True):
    """The answer of ``/healthz``."""

    alive: bool
    relay: str


class Ready(msgspec.Struct, frozen=True):
    """The answer of ``/readyz``: for each part ``ok``, or why not."""

    ready: bool
    database: str
    broker: str
    rounds: str


class Health:
    """A hook of the publisher; others set `database`, `broker` and `draining`."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._sign_of_life = now()
        self._rounds = 0
        self._sink_available = True
        self.database = "not asked yet"
        self.broker = "not connected yet"
        self.draining = False

    def __call__(self, fact: Fact, /) -> None:
        """Every fact is a sign of life: a round that takes long tells of its messages."""
        self.beat()
        if isinstance(fact, RoundEnded):
            self._rounds += 1
            self._sink_available = fact.sink_available

    def beat(self) -> None:
        """The relay gives a sign of life."""
        self._sign_of_life = self._now()

    def alive(self) -> Alive:
        """Whether to leave this process alone."""
        silence = self._now() - self._sign_of_life
        if silence <= STUCK or self.database != OK or self.broker != OK:
            return Alive(alive=True, relay=OK)
        return Alive(alive=False, relay=_silent_for(silence))

    def ready(self) -> Ready:
        """Whether messages that wait are relayed."""
        broker = self.broker if self._sink_available or self.broker != OK else "cannot be reached"
        parts = (self.database, broker, self._rounds_state())
        return Ready(all(part == OK for part in parts), *parts)

    def _rounds_state(self) -> str:
        silence = self._now() - self._sign_of_life
        if self.draining:
            return "told to end"
        if not self._rounds:
            return "none has ended yet"
        return OK if silence <= SILENT else _silent_for(silence)


def _silent_for(seconds: float) -> str:
    return f"no sign of life for {seconds:.0f} s"
