"""The goals of forgetting stored events."""

from . import forgetting
from .goal import Goal, Line

FORGET = [
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
]
