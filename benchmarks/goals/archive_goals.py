"""The goals of archives."""

from . import archiving
from .goal import Goal, Line

ARCHIVE = [
    Line(
        "archive",
        [
            Goal("archive beside 500 writes a second: events", 5_000, unit=" /s"),
            Goal("archive: the writer's p99 to that of alone", 1.3, most=True),
            Goal("archive: peak of memory", 120, most=True, unit=" MiB"),
            Goal("archive: JSON that stays in the table", 0.25, most=True),
            Goal("archive: events in no place, or in two", 0, most=True),
        ],
        archiving.archive,
    ),
]
