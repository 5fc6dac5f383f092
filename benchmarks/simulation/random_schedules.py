"""A random schedule of each seed: calm ones about fairness, and stormy ones about faults."""

from random import Random
from typing import Final, get_args

from .schedule import Clock, Fault, Replay, Schedule, Trouble, Write

_SPAN: Final = 12.0
"""Seconds in which most writes and faults of a schedule begin."""

_DRIFT: Final = 0.03
_HOUR: Final = 3600.0

_STORMS: Final = tuple(kind for kind in get_args(Trouble) if kind != "topic away")


def random_schedule(seed: int) -> Schedule:
    """Return the schedule of this seed."""
    random = Random(seed)
    storm = random.random() < 0.6
    shards = random.randint(1, 4)
    clocks = tuple(_clock(random) for _ in range(random.choice((1, 2, 2, 3)) if storm else 1))
    topics = random.randint(1, 3)
    writes = [_write(random, topics) for _ in range(random.randint(2, 10))]
    if random.random() < 0.25:
        writes.append(Write(_time(random), random.randrange(6), rows=random.randint(30, 100)))
    if random.random() < 0.4:
        writes = [_sick(random, write) for write in writes]
    faults = [_fault(random, len(clocks)) for _ in range(random.randint(1, 4))] if storm else []
    if random.random() < 0.2:
        topic = random.randrange(topics)
        faults.append(Fault("topic away", _time(random), random.uniform(2, 20), topic))
    replays = [
        Replay(_time(random) + _SPAN * random.random(), random.randrange(len(writes)))
        for _ in range(random.choice((0, 0, 0, 1, 3)))
    ]
    block = random.random() < 0.2
    return Schedule(seed, shards, clocks, tuple(writes), tuple(faults), tuple(replays), block=block)


def _time(random: Random) -> float:
    return round(_SPAN * random.random(), 2)


def _clock(random: Random) -> Clock:
    rate = random.choice((1.0, 1.0, 1 - _DRIFT, 1 + _DRIFT))
    return Clock(rate, float(random.randrange(1000)), random.choice((0.0, 0.0, -_HOUR, _HOUR)))


def _write(random: Random, topics: int) -> Write:
    return Write(
        _time(random),
        random.randrange(6),
        rows=random.choice((1, 1, 1, 2, 4)),
        late=random.choice((0.0, 0.0, 0.0, round(3 * random.random(), 2))),
        topic=random.randrange(topics),
        ahead=_HOUR if random.random() < 0.03 else 0.0,
    )


def _sick(random: Random, write: Write) -> Write:
    if random.random() < 0.5:
        return write
    kind = random.random()
    if kind < 0.1:
        return write._replace(broken=True)
    if kind < 0.25:
        return write._replace(rejected=True)
    return write._replace(retries=random.choice((1, 1, 2, 9)))


def _fault(random: Random, publishers: int) -> Fault:
    kind = random.choice(_STORMS)
    length = random.choice((0.5, 2.0, 6.0, 11.0, 15.0))
    return Fault(kind, _time(random), length, random.randrange(publishers))
