"""The goals of archives."""

from . import archiving
from .goal import Goal, Line

ARCHIVE = [
    Line(
        "archive",
        [
            Goal("archive: the p99 of 500 writes a second to that of alone", 1.3, most=True),
            Goal("archive beside them: events", 500, unit=" /s"),
            Goal("the same with a rate out of reach", 5_000, unit=" /s"),
            Goal("archive: peak of memory", 120, most=True, unit=" MiB"),
            Goal("archive: JSON that stays in the table", 0.25, most=True),
            Goal("archive: events in no place, or in two", 0, most=True),
        ],
        archiving.archive,
    ),
]
