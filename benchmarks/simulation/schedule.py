"""The events of a run. A schedule is a literal, so a failing one can be kept as a test."""

from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

Trouble = Literal[
    "crash",
    "stop",
    "pause",
    "database away",
    "statements lossy",
    "statements silent",
    "statements refused",
    "database read-only",
    "reads cut",
    "changes cut",
    "leases silent",
    "leases slow",
    "broker away",
    "broker lossy",
    "call hangs",
    "call stuck",
    "topic away",
    "topic paused",
]

Illness = Literal["raises", "hangs", "swallows an error", "ends the transaction"]
"""What the function of a model does wrong with a message."""

Fate = Literal["skips", "raises", "refuses"]
"""What the map of the default target does with a message, other than to map it."""

TOPICS: Final = frozenset({"topic away", "topic paused"})
"""The faults of a topic: the broker refuses it, or an operator paused it."""


DRIFT: Final = 0.03
"""The most by which a machine's clock is faster or slower than true time."""

EARLY: Final = 1 - DRIFT - 0.01
"""The part of a time that a fast clock waits for; seconds are rounded."""


CUTS: Final = frozenset({"reads cut", "changes cut"})
"""The faults that cut the connection of each such statement of the relay, before it runs."""

SHORT: Final = TOPICS | CUTS
"""The faults that do not stop the relay of healthy messages for long."""

GENTLE: Final = SHORT | {"stop"}
"""The faults that send no message twice, unless a stop ends while the changes are cut."""


class Clock(NamedTuple):
    """The clocks of a publisher.

    Its machine's boot clock runs `rate` times as fast as true time, from `offset`
    seconds. Its host's clock is `host` seconds ahead of the database's.
    """

    rate: float = 1.0
    offset: float = 0.0
    host: float = 0.0


class Target(NamedTuple):
    """A target beside the default one. It is added `at` a time, or there from the start on.

    It has `publishers` with exact clocks. The default target is number 0, the others follow.
    """

    kind: Literal["sink", "model"]
    at: float | None = None
    publishers: int = 1


class Write(NamedTuple):
    """A transaction with `rows` events of one subject.

    It takes its positions `at` a time in seconds, or when the subject's transaction
    before it has ended, and commits `late` seconds later. The positions are `ahead`
    seconds ahead of the database's clock. The broker answers `Retry` to the first
    `retries` attempts of each event, or rejects it. A `broken` row can be no message.

    That is the broker of the default target. The function of a model is `ill` in the first `ills`
    attempts of each event. The targets that a write knows are those of `early` seconds before its
    time, though it has to wait for the row.

    With a `fate` in any write the publishers of the default target have a map. The fate is that of
    each row whose number can be divided by `every`. The map raises for it so many `times`.
    """

    at: float
    subject: int
    rows: int = 1
    late: float = 0.0
    topic: int = 0
    ahead: float = 0.0
    retries: int = 0
    rejected: bool = False
    broken: bool = False
    ill: Illness | None = None
    ills: int = 0
    early: float = 0.0
    fate: Fate | None = None
    times: int = 0
    every: int = 1


class Replay(NamedTuple):
    """An operator's replay of the first event of the write with this number."""

    at: float
    write: int


class Fault(NamedTuple):
    """Trouble from `at` on for `length` seconds.

    `of` is the number of the publisher of the `target`, or of the topic. After a crash
    the publisher is started again at the end, after a stop when it has ended. A
    call that hangs does so until it is cancelled, and one that is stuck for ever. The
    relay's statements that are silent get no answer, or those of the leases; the other ones
    do. Leases are slow if the answers take nearly as long as they may. Half of the statements
    that are refused get an error of their own, with one of several SQLSTATEs. A database that
    is read-only accepts no writes in the sessions that begin meanwhile, as long as they last.
    """

    kind: Trouble
    at: float
    length: float
    of: int
    target: int = 0


@dataclass(frozen=True)
class Schedule:
    """One run. `seed` decides how long each statement and each message takes, and its fate.

    There is one publisher per clock; they start at `start` in seconds. A message takes up
    to `slow` seconds to the broker, and so does its answer. With `block`, the subject of
    a message that was given up waits for an operator. Between two sweeps through a shard,
    which find rows that were committed late, are `sweeps` seconds.
    """

    seed: int
    shards: int
    clocks: tuple[Clock, ...]
    writes: tuple[Write, ...]
    faults: tuple[Fault, ...] = ()
    replays: tuple[Replay, ...] = ()
    block: bool = False
    slow: float = 0.02
    start: float = 0.0
    sweeps: float = 4.0
    targets: tuple[Target, ...] = ()

    def of_target(self, number: int) -> "Schedule":
        """The part of it that concerns one target."""
        clocks = self.clocks if number == 0 else (Clock(),) * self.targets[number - 1].publishers
        faults = tuple(fault for fault in self.faults if fault.target == number)
        return replace(self, clocks=clocks, faults=faults, targets=())

    @property
    def has_map(self) -> bool:
        """Whether the publishers of the default target have a map."""
        return any(write.fate for write in self.writes)

    @property
    def calm_at(self) -> float:
        """When the publishers run and all faults but those of topics are over, in seconds."""
        ends = (f.at + f.length for f in self.faults if f.kind not in SHORT)
        return max((self.start, *ends))

    @property
    def topics_well_at(self) -> float:
        """When all topics are well, in seconds."""
        return max((f.at + f.length for f in self.faults if f.kind in TOPICS), default=0.0)
