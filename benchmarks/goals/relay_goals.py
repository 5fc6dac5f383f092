"""The goals of the relay."""

from . import fairness, lateness, lone, many_failures, throughput, upkeep
from .goal import Goal, Line

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
        "gap",
        [Goal("rows written before a take-over, 100,000 held", 2, most=True, unit=" s")],
        lateness.gap,
    ),
    Line(
        "ahead",
        [Goal("p50 of positions an hour ahead, 30,000 held", 0.05, most=True, unit=" s")],
        lateness.ahead,
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
        "silent",
        [Goal("silent connections: rows wait beyond the lease", 15, most=True, unit=" s")],
        lateness.silent,
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
        "metrics",
        [Goal("metrics: CPU that they add to a row / CPU of a row", 0.2, most=True)],
        throughput.metrics,
    ),
    Line("traced", [Goal("NATS, every row traced / none", 0.5)], throughput.traced),
    Line(
        "nats",
        [
            Goal("NATS / publish_async, subjects interleaved", 0.85),
            Goal("NATS / publish_async, ten consecutive rows per subject", 0.75),
        ],
        throughput.nats,
    ),
    Line(
        "live",
        [
            Goal("ordered events, ten per subject, two publishers: arrived", 9_900, unit=" /s"),
            Goal("the same: p99", 0.2, most=True, unit=" s"),
        ],
        throughput.live,
    ),
    Line(
        "held",
        [Goal("p99 of others, 100,000 held rows / none", 1.5, most=True)],
        throughput.held,
    ),
    Line(
        "distance",
        [Goal("drain, 2 ms each way and 10 ms per commit", 20_000, unit=" /s")],
        throughput.distance,
    ),
    Line(
        "lone",
        [
            Goal("lone event of another process, polling: p50", 60, most=True, unit=" ms"),
            Goal("the same: longest", 150, most=True, unit=" ms"),
            Goal("the same with the doorbell: p50", 5, most=True, unit=" ms"),
            Goal("the same with the doorbell: p99", 50, most=True, unit=" ms"),
        ],
        lone.lone,
    ),
    Line(
        "idle",
        [
            Goal("idle: reads per minute", 60, most=True),
            Goal("idle: lease statements per beat", 1, most=True),
            Goal("idle: CPU of the server per read", 300, most=True, unit=" us"),
        ],
        upkeep.idle,
    ),
]
