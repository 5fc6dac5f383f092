"""The goals of the jobs on stored events."""

from . import verification
from .goal import Goal, Line

LIFE = [
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
