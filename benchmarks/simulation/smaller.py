"""A schedule that breaks a rule, made smaller while it breaks it, and written as Python.

`ddmin` leaves out parts: A. Zeller and R. Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input", IEEE Transactions on Software Engineering 28(2), 2002. What is left is
made plainer, one number at a time, and then parts are left out again.

A part that is left out changes the chance of all that follows, and moments that met before meet
no longer. So a smaller schedule is tried with other seeds and other times, too: with few of them
until nothing helps any more, and then with more.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import pairwise, product
from math import inf
from random import Random
from time import monotonic
from typing import Any, Final, Literal, NamedTuple, TypeVar

from .schedule import TOPICS, Clock, Fault, Schedule, Trouble

T = TypeVar("T")

Fails = Callable[[Schedule], bool]

SEEDS: Final = (2, 8, 32)
"""How many other seeds a smaller schedule is tried with: the next number when none helps."""

_PLAIN: Final = Schedule(seed=0, shards=1, clocks=(), writes=())
"""The plainest value of each number of a schedule."""

_LATEST: Final = 13
_LENGTHS: Final = (0.5, 2.0, 6.0, 11.0, 15.0)
"""The times of writes and faults that are tried, in seconds, and the lengths of faults."""

_PLAINEST: Final[tuple[Trouble, ...]] = ("stop", "crash", "pause")
"""The plainest faults of publishers: no other one needs to know the relay."""

_TOGETHER: Final = {"ill": ("ill", "ills"), "fate": ("fate", "times", "every")}
"""The numbers of a write that mean nothing without the first one of them."""

_KEPT: Final = {"target", "rows", "ills", "times", "every"}
"""The numbers that get no default alone. That of a target says whose the fault is."""


class Part(NamedTuple):
    """One part of a schedule: the number of a publisher, a target, a write, a fault or a replay."""

    kind: Literal["clock", "target", "write", "fault", "replay"]
    number: int


def events(schedule: Schedule) -> int:
    """The number of events that a schedule writes and replays, and of its faults."""
    return sum(write.rows for write in schedule.writes) + len(schedule.replays + schedule.faults)


def smaller(schedule: Schedule, fails: Fails, seconds: float = inf) -> Schedule:
    """The smallest schedule that can be found within so many seconds, and still fails.

    `fails` runs hundreds or thousands of times.
    """
    search = _Search(schedule, fails, monotonic() + seconds)
    for seeds in SEEDS:
        before = None
        while search.best != before:
            before = search.best
            search.leave_out_parts(seeds)
            search.make_plainer(seeds)
    return search.best


def ddmin(parts: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """Parts that fail, of which none can be left out: the minimizing delta debugging algorithm."""
    pieces = 2
    while len(parts) > 1:
        size = len(parts) / pieces
        ends = [round(n * size) for n in range(pieces + 1)]
        bounds = list(pairwise(ends))
        alone = (parts[begin:end] for begin, end in bounds)
        others = ([*parts[:begin], *parts[end:]] for begin, end in bounds)
        if (one := next(filter(fails, alone), None)) is not None:
            parts, pieces = one, 2
        elif (rest := next(filter(fails, others), None)) is not None:
            parts, pieces = rest, max(pieces - 1, 2)
        elif pieces == len(parts):
            break
        else:
            pieces = min(2 * pieces, len(parts))
    return parts


class _Search:
    """The smallest schedule so far."""

    def __init__(self, schedule: Schedule, fails: Fails, ends_at: float) -> None:
        self.best = schedule
        self._fails = fails
        self._ends_at = ends_at
        self._tried: set[Schedule] = set()

    def leave_out_parts(self, seeds: int) -> None:
        """Leave out what the failure does not need: parts, and rows of writes."""
        whole = self.best

        def fails(kept: Sequence[Part]) -> bool:
            small = _with_parts(whole, kept)
            return self._takes(small, *_others(small, seeds))

        ddmin(_parts(whole), fails)
        while any(self._takes(each, *_others(each, seeds)) for each in _fewer_rows(self.best)):
            pass

    def make_plainer(self, seeds: int) -> None:
        """Make one number after the other plainer, as long as any can be."""
        while any(
            self._takes(each, *(replace(each, seed=seed) for seed in range(seeds)))
            for each in _plainer(self.best)
        ):
            pass

    def _takes(self, *schedules: Schedule) -> bool:
        """Whether one of these smaller schedules fails, which is the best one now."""
        for tried in schedules:
            if tried in self._tried:
                continue
            if monotonic() > self._ends_at:
                return False
            self._tried.add(tried)
            if self._fails(tried):
                self.best = tried
                return True
        return False


def _others(schedule: Schedule, seeds: int) -> Iterator[Schedule]:
    """The schedule with other seeds, and each of them with other times."""
    for seed in range(seeds):
        other, random = replace(schedule, seed=seed), Random(seed)
        yield other
        yield replace(
            other,
            writes=tuple(
                write._replace(at=float(random.randrange(_LATEST))) for write in schedule.writes
            ),
            faults=tuple(
                fault._replace(at=float(random.randrange(_LATEST)), length=random.choice(_LENGTHS))
                if fault.kind not in TOPICS and fault.kind != "stop"
                else fault
                for fault in schedule.faults
            ),
        )


def _parts(schedule: Schedule) -> list[Part]:
    """The parts that may be left out. Targets and publishers come last, since they matter most."""
    return [
        *(Part("fault", n) for n in range(len(schedule.faults))),
        *(Part("replay", n) for n in range(len(schedule.replays))),
        *(Part("write", n) for n in range(len(schedule.writes))),
        *(Part("target", n) for n in range(1, 1 + len(schedule.targets))),
        *(Part("clock", n) for n in range(len(schedule.clocks))),
    ]


def _with_parts(schedule: Schedule, kept: Sequence[Part]) -> Schedule:
    """A schedule with these parts only. What belongs to a part that is left out goes with it."""
    numbers = {kind: [n for k, n in kept if k == kind] for kind, _ in kept}
    clocks = numbers.get("clock", [])
    writes = numbers.get("write", [])
    targets = [0, *numbers.get("target", [])]
    faults = [
        fault._replace(
            target=targets.index(fault.target),
            of=fault.of if fault.target or fault.kind in TOPICS else clocks.index(fault.of),
        )
        for fault in (schedule.faults[n] for n in numbers.get("fault", []))
        if fault.target in targets
        and (fault.target or fault.kind in TOPICS or fault.of in clocks)
        and (len(clocks) > 1 or fault.kind != "call stuck")  # others must be able to take over
    ]
    replays = [
        replay._replace(write=writes.index(replay.write))
        for replay in (schedule.replays[n] for n in numbers.get("replay", []))
        if replay.write in writes
    ]
    return replace(
        schedule,
        clocks=tuple(schedule.clocks[n] for n in clocks) or (Clock(),),
        targets=tuple(schedule.targets[n - 1] for n in targets[1:]),
        writes=tuple(schedule.writes[n] for n in writes),
        faults=tuple(faults),
        replays=tuple(replays),
    )


def _fewer_rows(schedule: Schedule) -> Iterator[Schedule]:
    """The schedules of which one write has fewer rows."""
    for n, write in enumerate(schedule.writes):
        for rows in (1, write.rows // 2, write.rows - 1):
            if 0 < rows < write.rows:
                fewer = write._replace(rows=rows, every=min(write.every, rows))
                yield replace(
                    schedule, writes=(*schedule.writes[:n], fewer, *schedule.writes[n + 1 :])
                )


def _plainer(schedule: Schedule) -> Iterator[Schedule]:
    """The schedules with one number that is plainer."""
    for name in ("block", "slow", "start", "sweeps", "shards"):
        yield from _with_field(schedule, name, getattr(_PLAIN, name))
    if schedule.shards > 2:
        yield replace(schedule, shards=schedule.shards - 1)
    for name in ("clocks", "targets", "writes", "faults", "replays"):
        items = getattr(schedule, name)
        for n, item in enumerate(items):
            for plain in _plainer_items(item):
                if plain != item:
                    yield from _with_field(schedule, name, (*items[:n], plain, *items[n + 1 :]))
    yield from _fewer_subjects(schedule)


def _with_field(schedule: Schedule, name: str, value: Any) -> Iterator[Schedule]:
    if getattr(schedule, name) != value:
        yield replace(schedule, **{name: value})


def _plainer_items(item: Any) -> Iterator[Any]:
    """A write, a fault or the like with the default of one number, or with a plainer number.

    Times are rounded to seconds, or to tenths.
    """
    defaults = item._field_defaults
    for name in (each for each in defaults if each not in _KEPT):
        yield item._replace(**{each: defaults[each] for each in _TOGETHER.get(name, (name,))})
    for name in ("retries", "times", "ills"):
        if (number := getattr(item, name, 0)) > 1:
            yield from (item._replace(**{name: n}) for n in (1, number // 2, number - 1))
    if isinstance(item, Fault):
        yield from (item._replace(kind=kind) for kind in _PLAINEST[: _plainness(item)])
        yield item._replace(length=round(item.length / 2, 1))
    for name, digits in product(("at", "length", "late"), (0, 1)):
        if time := getattr(item, name, None):
            yield item._replace(**{name: round(time, digits)})


def _plainness(fault: Fault) -> int:
    """How many kinds of faults are plainer."""
    if fault.kind in TOPICS:
        return 0
    return _PLAINEST.index(fault.kind) if fault.kind in _PLAINEST else len(_PLAINEST)


def _fewer_subjects(schedule: Schedule) -> Iterator[Schedule]:
    """The schedule whose subjects are numbered from 0 on."""
    numbers = {subject: n for n, subject in enumerate({w.subject: 0 for w in schedule.writes})}
    plain = tuple(write._replace(subject=numbers[write.subject]) for write in schedule.writes)
    if plain != schedule.writes:
        yield replace(schedule, writes=plain)


def literal(schedule: Schedule) -> str:
    """The schedule as a Python expression, without what has its default."""
    lines: list[str] = []
    for field in fields(schedule):
        value = getattr(schedule, field.name)
        if isinstance(value, tuple) and value:
            items = [f"        {_item(item)}," for item in value]
            lines += [f"    {field.name}=(", *items, "    ),"]
        elif value != field.default:
            lines.append(f"    {field.name}={value!r},")
    return "\n".join(["Schedule(", *lines, ")"])


def _item(item: NamedTuple) -> str:
    defaults = item._field_defaults
    given = {k: v for k, v in item._asdict().items() if k not in defaults or v != defaults[k]}
    return f"{type(item).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"
