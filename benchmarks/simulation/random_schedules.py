"""A random schedule for each seed.

In a *calm* one, messages and topics are sick and nothing else fails. In a *hot* one, a
subject has many rows before others get theirs. In a *gentle* one, publishers are stopped
and statements are cut, which sends nothing twice. In a *split*, a publisher loses its
leases while it works. In a *return*, a shard is lost and comes back while the reads of its
owner have no answer. In a *storm*, publishers, database and broker fail at random, too.
In a *rush*, few subjects have many messages when the publishers start, which then go in runs.

Some have a crowd of subjects, which fills the memory, some have more targets, and in some the
publishers of the default target have a map.
"""

from dataclasses import replace
from random import Random
from typing import Final, get_args

from .schedule import (
    DRIFT,
    TOPICS,
    Clock,
    Fate,
    Fault,
    Illness,
    Replay,
    Schedule,
    Target,
    Trouble,
    Write,
)

_SPAN: Final = 8.0
"""Seconds in which most writes and faults of a schedule begin."""

_SUBJECTS: Final = 6
_FEW: Final = 6
"""The most rows of a write that may fail more than once each."""

_HOUR: Final = 3600.0

_LOSSY: Final[tuple[Trouble, ...]] = ("statements lossy", "statements lossy", "broker lossy")
"""The faults that have many forms are chosen more often."""

_REFUSALS: Final[tuple[Trouble, ...]] = ("statements refused", "database read-only")
"""They are added last, by a chance of their own, so that the rest of a schedule stays as it was."""

_APART: Final = TOPICS | {*_REFUSALS, "call stuck"}
_STORMS: Final = (*(kind for kind in get_args(Trouble) if kind not in _APART), *_LOSSY)


def random_schedule(seed: int) -> Schedule:
    """Return the schedule of this seed."""
    random = Random(seed)
    kinds = (_calm, _hot, _gentle, _split, _return, _storm, _rush)
    (make,) = random.choices(kinds, (3, 1, 4, 2, 2, 6, 4))
    return _with_map(_with_targets(_with_crowd(make(seed, random))))


def _calm(seed: int, random: Random) -> Schedule:
    topics = random.randint(1, 3)
    writes = [_write(random, topics) for _ in range(random.randint(2, 10))]
    if random.random() < 0.5:
        writes = [_sick(random, write) if random.random() < 0.5 else write for write in writes]
    faults = []
    if random.random() < 0.3:
        length = round(random.uniform(2, 20), 1)
        kind: Trouble = random.choice(("topic away", "topic away", "topic paused"))
        faults.append(Fault(kind, _time(random), length, random.randrange(topics)))
    return Schedule(
        seed,
        shards=random.randint(1, 4),
        clocks=tuple(_clock(random) for _ in range(random.choice((1, 1, 1, 2)))),
        writes=tuple(writes),
        faults=tuple(faults),
        replays=tuple(_replays(random, len(writes))),
        block=random.random() < 0.2,
        slow=random.choice((0.02, 0.02, 0.3)),
        start=random.choice((0.0, 0.0, _SPAN)),
    )


def _hot(seed: int, random: Random) -> Schedule:
    calm = _calm(seed, random)
    hot = Write(0.5, random.randrange(_SUBJECTS), rows=random.choice((40, 60, 80)))
    return replace(calm, shards=random.randint(1, 2), writes=(*calm.writes, hot))


def _gentle(seed: int, random: Random) -> Schedule:
    """Reads are cut while messages fail, or publishers are stopped."""
    calm, is_cut = _calm(seed, random), random.random() < 0.5
    writes = [
        _write(random, 1)._replace(
            rows=random.choice((1, 3)),
            late=random.choice((0.0, 0.0, 0.6)),
            retries=random.choice((0, 1, 1)),
            rejected=not is_cut and random.random() < 0.2,
        )
        for _ in range(8)
    ]
    at = [round(write.at + random.random(), 2) for write in writes[: random.randint(1, 3)]]
    gentle = replace(calm, slow=0.3, start=0.0, sweeps=30.0)
    if is_cut:
        cuts = [Fault("reads cut", round(each + random.random(), 2), 0.4, 0) for each in at[:2]]
        return replace(
            gentle, clocks=calm.clocks[:1], writes=tuple(writes), faults=tuple(cuts), block=False
        )
    stops = [Fault("stop", each, 0.0, random.randrange(len(calm.clocks))) for each in at]
    cuts = [Fault("changes cut", round(each.at + 0.2, 2), 0.4, each.of) for each in stops[:2]]
    return replace(
        gentle,
        writes=(*calm.writes, *writes),
        faults=(*calm.faults, *stops, *cuts),
        block=random.random() < 0.5,
    )


def _split(seed: int, random: Random) -> Schedule:
    """The answers before were slow, a call hangs, or tables or broker are in trouble meanwhile."""
    storm, at = _storm(seed, random), round(random.uniform(4, 6), 1)
    apart = random.choice(
        (
            Fault("leases slow", at - 4, 4.0, 0),
            Fault("call hangs", at + _time(random), 10.0, 0),
            Fault("changes cut", at + 5, 9.0, 0),
            Fault("broker lossy", at + 3, 9.0, 0),
        )
    )
    writes, subjects = [_write(random, 1) for _ in range(16)], random.choice((1, _SUBJECTS))
    later = [write._replace(at=round(at - 1 + 2 * write.at, 2), late=0.0) for write in writes]
    return replace(
        storm,
        clocks=(storm.clocks[0], _clock(random)),
        writes=tuple(
            each._replace(
                subject=each.subject % subjects,
                rejected=random.random() < 0.2,
                retries=random.choice((0, 0, 1)),
            )
            for each in later
        ),
        faults=(Fault("leases silent", at, 15.0, 0), apart),
        replays=(),
        shards=4,
    )


def _return(seed: int, random: Random) -> Schedule:
    """The second publisher joins and leaves while the first one neither reads nor sends."""
    storm, leaves = _storm(seed, random), round(random.uniform(6.1, 7.5), 1)
    kept = tuple(Write(0.5, subject) for subject in range(_SUBJECTS))
    return replace(
        storm,
        clocks=(storm.clocks[0], _clock(random)),
        writes=(*storm.writes, *kept),
        faults=(
            Fault("crash", 0.0, round(random.uniform(0.5, 1.5), 1), 1),
            Fault("broker away", 0.2, round(random.uniform(8.5, 14), 1), 0),
            Fault("statements silent", 1.0, 15.0, 0),
            Fault("stop", leaves, 0.0, 1),
            Fault("crash", leaves + 0.5, 10.0, 1),  # or it would start again
        ),
        shards=4,
    )


def _storm(seed: int, random: Random) -> Schedule:
    clocks = tuple(_clock(random) for _ in range(random.choice((1, 2, 2, 3))))
    faults = [_fault(random, len(clocks)) for _ in range(random.randint(1, 6))]
    if len(clocks) > 1 and random.random() < 0.2:  # the others must be able to take over
        faults.append(Fault("call stuck", _time(random), 2.0, 0))
    calm = _calm(seed, random)
    if all(fault.kind != "call stuck" for fault in faults):  # or a restart would end it
        faults += _refusals(seed, len(clocks))
    return replace(calm, clocks=clocks, faults=(*calm.faults, *faults), start=0.0)


def _rush(seed: int, random: Random) -> Schedule:
    """Some of the messages are sick, the broker loses some of the runs, and one more fails."""
    storm, start = _storm(seed, random), 2.0
    rushed = [
        Write(
            round(start * random.random(), 2),
            random.randrange(2),
            rows=random.choice((1, 2, 4, 6)),
            topic=int(random.random() < 0.2),
        )
        for _ in range(10)
    ]
    lossy = [
        Fault("broker lossy", start, round(random.uniform(2, 12), 1), publisher)
        for publisher in range(len(storm.clocks))
    ]
    later = [fault._replace(at=round(start + 0.5 * fault.at, 2)) for fault in storm.faults[:2]]
    return replace(
        storm,
        writes=tuple(_sick(random, each) if random.random() < 0.2 else each for each in rushed),
        faults=(*lossy, *later),
        replays=tuple(Replay(_time(random), random.randrange(10)) for _ in range(2)),
        start=start,
        shards=random.randint(1, 2),
    )


def _time(random: Random) -> float:
    return round(_SPAN * random.random(), 2)


def _clock(random: Random) -> Clock:
    rate = random.choice((1.0, 1.0, 1 - DRIFT, 1 + DRIFT))
    return Clock(rate, float(random.randrange(1000)), random.choice((0.0, 0.0, -_HOUR, _HOUR)))


def _write(random: Random, topics: int) -> Write:
    return Write(
        _time(random),
        random.randrange(_SUBJECTS),
        rows=random.choice((1, 1, 1, 2, 4)),
        late=random.choice((0.0, 0.0, 0.0, round(3 * random.random(), 2))),
        topic=random.randrange(topics),
        ahead=_HOUR if random.random() < 0.03 else 0.0,
    )


def _sick(random: Random, write: Write) -> Write:
    kind = random.random()
    if kind < 0.1:
        return write._replace(broken=True)
    if kind < 0.25:
        return write._replace(rejected=True)
    return write._replace(retries=random.choice((1, 1, 2, 9)))


def _replays(random: Random, writes: int) -> list[Replay]:
    number = random.choice((0, 0, 0, 1, 3))
    return [Replay(_time(random) + _time(random), random.randrange(writes)) for _ in range(number)]


def _fault(random: Random, publishers: int) -> Fault:
    length = random.choice((0.5, 2.0, 6.0, 11.0, 15.0))
    return Fault(random.choice(_STORMS), _time(random), length, random.randrange(publishers))


def _with_crowd(schedule: Schedule) -> Schedule:
    """Add many subjects by a chance of their own, so that the rest of a schedule stays as it was.

    They have a few rows each, which one read finds, and some have more a moment later. Rows behind
    others may be sick.
    """
    random = Random(f"crowds of {schedule.seed}")
    if random.random() < 0.9:
        return schedule
    at, is_sick, topics = _time(random), random.random() < 0.5, random.choice((1, 1, 3))
    writes: list[Write] = []
    for subject in range(_SUBJECTS, _SUBJECTS + random.randint(10, 24)):
        first = Write(round(at + 0.2 * random.random(), 2), subject, topic=random.randrange(topics))
        behind = first._replace(rows=random.choice((1, 1, 2)))
        writes += [
            first._replace(rows=random.choice((1, 1, 2))),
            *([_sick(random, behind) if is_sick else behind] * (random.random() < 0.5)),
            *([first._replace(at=round(first.at + random.random(), 2))] * (random.random() < 0.4)),
        ]
    kinds: tuple[Trouble, ...] = ("broker lossy", "broker lossy", "topic paused", "topic away")
    fault = Fault(
        random.choice(kinds), round(at + random.random(), 2), random.choice((2.0, 6.0)), 0
    )
    return replace(
        schedule,
        writes=(*schedule.writes, *writes),
        faults=(*schedule.faults, *([fault] * (random.random() < 0.8))),
        slow=min(schedule.slow, 0.1),
        start=random.choice((schedule.start, at + 0.5)),
    )


def _with_targets(schedule: Schedule) -> Schedule:
    """Add targets by a chance of their own, so that the rest of a schedule stays as it was.

    Each one has troubles of its own: those of the default target must not concern it.
    """
    random = Random(f"targets of {schedule.seed}")
    if random.random() < 0.6:
        return schedule
    targets = [_target(random) for _ in range(random.choice((1, 1, 2, 3)))]
    faults = [
        fault._replace(target=number)
        for number, target in enumerate(targets, start=1)
        if random.random() < 0.5
        for fault in [_fault(random, target.publishers) for _ in range(random.choice((1, 1, 3)))]
        if fault.kind != "call hangs"
    ]
    if random.random() < 0.3:  # a sink that is dead
        number = random.randrange(len(targets))
        of = range(targets[number].publishers)
        faults += [Fault("broker away", 0.0, 30.0, each, number + 1) for each in of]
    if random.random() < 0.3:
        length = round(random.uniform(5, 20), 1)
        faults.append(Fault("topic paused", _time(random), length, 0, len(targets)))
    writes = [_ill(random, each) if random.random() < 0.2 else each for each in schedule.writes]
    if any(target.at is not None for target in targets):
        early = (0.0, 0.0, 2.0, 5.0)
        writes = [write._replace(early=random.choice(early)) for write in writes]
    return replace(
        schedule,
        writes=tuple(writes),
        faults=(*schedule.faults, *faults),
        targets=tuple(targets),
    )


def _with_map(schedule: Schedule) -> Schedule:
    """Give publishers a map by a chance of its own, so that the rest of a schedule stays."""
    random = Random(f"map of {schedule.seed}")
    if random.random() < 0.6:
        return schedule
    writes = [_fated(random, each) if random.random() < 0.5 else each for each in schedule.writes]
    return replace(schedule, writes=tuple(writes))


def _fated(random: Random, write: Write) -> Write:
    every = random.randint(1, min(3, write.rows))
    (fate,) = random.choices(get_args(Fate), (6, 2, 1))
    if fate != "raises":
        return write._replace(fate=fate, every=every)
    times = random.choice((1, 1, 2, 9)) if write.rows <= _FEW else 1
    return write._replace(fate=fate, every=write.rows, times=times)


def _ill(random: Random, write: Write) -> Write:
    kinds: list[Illness] = [each for each in get_args(Illness) if each != "hangs" or write.rows < 3]
    ill, ills = random.choice(kinds), random.choice((1, 1, 2, 9))
    # The rows of a subject wait for each other, and a run has only so many seconds.
    return write._replace(ill=ill, ills=1 if ill == "hangs" or write.rows > _FEW else ills)


def _target(random: Random) -> Target:
    at = random.choice((None, _time(random)))
    return Target(random.choice(("sink", "model")), at, random.choice((1, 1, 2)))


def _refusals(seed: int, publishers: int) -> list[Fault]:
    random = Random(f"refusals of {seed}")
    faults: list[Fault] = []
    for kind in _REFUSALS:
        if random.random() < 0.2:
            length = random.choice((0.5, 3.0, 12.0))
            of = (
                range(publishers)
                if kind == "database read-only"
                else [random.randrange(publishers)]
            )
            at = _time(random)
            faults += [Fault(kind, at, length, each) for each in of]
    return faults
