"""The goals of the jobs on stored events."""

from . import forgetting, verification
from .goal import Goal, Line

LIFE = [
    Line(
        "forget",
        [
            Goal("forget: the p99 of 500 writes a second to that of alone", 1.3, most=True),
            Goal("forget beside them: events", 500, unit=" /s"),
            Goal("the same with a rate out of reach", 5_000, unit=" /s"),
            Goal("forget: peak of memory", 120, most=True, unit=" MiB"),
        ],
        forgetting.forget,
    ),
    Line(
        "verify",
        [
            Goal("verify: events", 20_000, unit=" /s"),
            Goal("verify: planted faults that it named, of 7", 7),
        ],
        verification.verify,
    ),
    Line(
        "erase",
        [
            Goal("erase: rows with the marker afterwards", 0, most=True),
            Goal("erase: rows of others that changed", 0, most=True),
            Goal("erase: findings of verify afterwards", 0, most=True),
        ],
        verification.erase,
    ),
]
