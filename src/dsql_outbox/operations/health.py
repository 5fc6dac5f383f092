"""Liveness and readiness of a process that relays: pure, computed from facts and the time.

The two answers cause different actions. "Not alive" asks for a restart, so it is given only
when a restart would help: the relay was silent although database and broker can be reached.
"Not ready" is given whenever no messages are relayed, whatever the cause. The reasons are
fixed texts, because anybody may ask, and an error message could reveal a host or a login.
"""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final

import msgspec

from dsql_outbox.observability.facts import Fact, RelayProgress
from dsql_outbox.observability.shown_text import duration

from .attention import unsent_text

OK: Final = "ok"
SILENT: Final = 30.0
"""Seconds without a fact from the relay, after which it is not ready."""

_MORE: Final = "See dsql-outbox status, and the log."
STUCK: Final = 60.0
"""Seconds without a fact, with database and broker in reach, after which it is not alive."""


class Alive(msgspec.Struct, frozen=True):
    """Whether to leave this process alone: the answer of ``/healthz``.

    `relay` is ``ok`` or the reason.
    """

    alive: bool
    relay: str


class Ready(msgspec.Struct, frozen=True):
    """Whether messages are relayed: the answer of ``/readyz``, ``ok`` or the reason per part.

    `summary` says it in a sentence, that of `attention` where it has one. The relay is ``ok`` if
    it owns its share of the shards, and has renewed them lately.

    `paused` names the topics that take no messages, at most 50, and there are `paused_more`
    such topics without a name. The others are relayed, so it is
    ready in spite of them. So it is if messages fail, at the sink or in a read model's
    function: `held` is how many subjects wait behind one.
    """

    ready: bool
    summary: str
    database: str
    broker: str
    relay: str
    paused: Sequence[str] = ()
    paused_more: int = 0
    held: int = 0


def readiness(
    database: str, broker: str, relay: str, progress: RelayProgress, *, seconds: float = 0.0
) -> Ready:
    """Return the answer for the states of the parts, and what the relay has told.

    The first fault is `seconds` old.
    """
    parts = {"database": database, "broker": broker, "relay": relay}
    faults = [f"{name} {state}" for name, state in parts.items() if state != OK]
    if faults:
        since = f" for {duration(seconds)}" if seconds >= 1 else ""
        summary = f"No messages are relayed{since}: {', '.join(faults)}. {_MORE}"
    elif progress.paused:
        refusing = unsent_text(progress.paused, progress.paused_more)
        summary = f"{refusing} {_MORE}"
    elif progress.held:
        summary = (
            f"What is stored is relayed. Subjects that wait behind a failure: {progress.held:,}."
        )
    else:
        summary = "What is stored is relayed."
    return Ready(
        not faults,
        summary,
        database,
        broker,
        relay,
        paused=progress.paused,
        paused_more=progress.paused_more,
        held=progress.held,
    )


class Health:
    """Whether the publisher lives and relays: one of its hooks; see docs/deploy.md.

    A `HealthProbe` sets `database` and `broker` while it runs. A program without a probe sets
    them to ``ok`` itself. It sets `draining` when the publisher is asked to stop.
    """

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._sign_of_life = now()
        self._progress: RelayProgress | None = None
        self._faulty_since: dict[str, float] = {}
        self._database = "not asked yet"
        self._broker = "not connected yet"
        self.draining = False

    @property
    def database(self) -> str:
        """``ok``, or the reason why the database cannot be used."""
        return self._database

    @database.setter
    def database(self, state: str) -> None:
        self._database = state
        self._note_faults()

    @property
    def broker(self) -> str:
        """``ok``, or the reason why the broker cannot be used."""
        return self._broker

    @broker.setter
    def broker(self, state: str) -> None:
        self._broker = state
        self._note_faults()

    def __call__(self, fact: Fact, /) -> None:
        """Count any fact as a sign of life."""
        self.beat()
        if isinstance(fact, RelayProgress):
            self._progress = fact
            self._note_faults()

    def takes_calls(self) -> bool:
        """A call of the sink is as good a sign of life as each of its messages."""
        return True

    def beat(self) -> None:
        """Record that the relay works at this moment."""
        self._sign_of_life = self._now()

    def alive(self) -> Alive:
        """Whether this process can go on without a restart."""
        silence = self._now() - self._sign_of_life
        if silence <= STUCK or self.database != OK or self.broker != OK:
            return Alive(alive=True, relay=OK)
        return Alive(alive=False, relay=_silent_for(silence))

    def ready(self) -> Ready:
        """Whether waiting messages are being relayed."""
        self._note_faults()
        first = min(self._faulty_since.values(), default=self._now())
        return readiness(
            **self._states(),
            progress=self._progress or RelayProgress(),
            seconds=self._now() - first,
        )

    def _states(self) -> dict[str, str]:
        return {
            "database": self._database_state(),
            "broker": self._broker_state(),
            "relay": self._relay_state(),
        }

    def _note_faults(self) -> None:
        """Remember since when each part has not been ``ok``."""
        faulty = [name for name, state in self._states().items() if state != OK]
        now, before = self._now(), self._faulty_since
        self._faulty_since = {name: before.get(name, now) for name in faulty}

    def _database_state(self) -> str:
        is_refused = self._progress is not None and not self._progress.database_available
        return "does not serve the relay" if is_refused and self.database == OK else self.database

    def _broker_state(self) -> str:
        is_lost = self._progress is not None and not self._progress.sink_available
        return "cannot be reached" if is_lost and self.broker == OK else self.broker

    def _relay_state(self) -> str:
        silence = self._now() - self._sign_of_life
        if self.draining:
            return "shutting down"
        if self._progress is None:
            return "has not started yet"
        if silence > SILENT:
            return _silent_for(silence)
        if not self._progress.leases_kept:
            return "cannot renew its leases"
        return f"lacks {self._progress.unowned} shards" if self._progress.unowned else OK


def _silent_for(seconds: float) -> str:
    return f"no sign of life for {seconds:.0f} s"
