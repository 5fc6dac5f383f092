"""The goals of the relay."""

from . import fairness, many_failures, steady, throughput, upkeep
from .goal import Goal, Line

_STEADY = (("100", 10, 20, 600, 300), ("1,000", 20, 40, 110, 40))

RELAY = [
    Line(
        "failed",
        [
            Goal("CPU of a failed attempt, sink answers in 5 ms", 80, most=True, unit=" us"),
            Goal("CPU of a failed attempt, sink answers at once", 80, most=True, unit=" us"),
        ],
        fairness.failed,
    ),
    Line(
        "behind",
        [Goal("first healthy row behind 20,000 failing subjects", 1, most=True, unit=" s")],
        fairness.behind,
    ),
    Line(
        "hot",
        [
            Goal(f"500 subjects beside 50,000 rows of one, {when}", 2, most=True, unit=" s")
            for when in ("at start", "live", "after a restart")
        ],
        fairness.hot,
    ),
    Line(
        "failures",
        [
            Goal("statements to record 500 failures", 3, most=True),
            Goal("statements to bury 500 rows", 3, most=True),
        ],
        upkeep.failures,
    ),
    Line(
        "failing",
        [
            Goal("failing subjects, far more than are remembered: memory", 256, True, " MiB"),
            Goal("the same: a sweep of them", 120, most=True, unit=" s"),
        ],
        many_failures.many_failures,
    ),
    Line(
        "drain",
        [
            Goal("drain to a null sink / bare loop of the same read and delete", 0.75),
            Goal("CPU per row", 7.5, most=True, unit=" us"),
        ],
        throughput.drain,
    ),
    Line(
        "lone",
        [
            Goal("lone event of another process, polling: p50", 60, most=True, unit=" ms"),
            Goal("the same: longest", 150, most=True, unit=" ms"),
            Goal("the same with the doorbell: p50", 5, most=True, unit=" ms"),
            Goal("the same with the doorbell: p99", 50, most=True, unit=" ms"),
        ],
        steady.lone,
    ),
    Line(
        "steady",
        [
            goal
            for rate, p50, p99, process, server in _STEADY
            for goal in (
                Goal(f"{rate} events/s of another process: p50", p50, most=True, unit=" ms"),
                Goal("the same: p99", p99, most=True, unit=" ms"),
                Goal("the same: CPU of the publisher per message", process, True, " us"),
                Goal("the same: CPU of its sessions per message", server, True, " us"),
            )
        ],
        steady.steady,
    ),
    Line(
        "idle",
        [
            Goal("idle: reads per minute", 1_200, most=True),
            Goal("idle: lease statements per beat", 1, most=True),
            Goal("idle: CPU of the server per read", 300, most=True, unit=" us"),
        ],
        upkeep.idle,
    ),
]
