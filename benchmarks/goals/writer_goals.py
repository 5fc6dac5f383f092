"""The goals of the writer."""

from . import against_peers, append_cost, group_commit, statement_cost, tracing_cost
from .goal import Goal, Line

WRITER = [
    Line(
        "statement",
        [
            Goal(f"batch statement / four plain inserts, {size:,} events", 1.2, most=True)
            for size in statement_cost.SIZES
        ],
        statement_cost.statements,
    ),
    Line(
        "many",
        [Goal("write_many of 100 / bare asyncpg statement", 0.6)],
        against_peers.write_many,
    ),
    Line(
        "large",
        [Goal("write_many of 10,000 / bare asyncpg statement", 0.6)],
        against_peers.large,
    ),
    Line(
        "command",
        [
            Goal("the command write / bare asyncpg statement", 0.6),
            Goal("the same: peak memory", 120, most=True, unit=" MiB"),
            Goal("the same: growth of memory", 10, most=True, unit=" %"),
        ],
        against_peers.command,
    ),
    Line(
        "lanes",
        [Goal("256 callers on 4 lanes / pgbench's single events, 8 connections", 2.2)],
        group_commit.lanes,
    ),
    Line(
        "entity",
        [Goal("64 callers on one entity, lanes / none", 20)],
        group_commit.one_entity,
    ),
    Line(
        "far",
        [
            Goal("one entity, 2 ms each way and 10 ms per commit, lanes", 5_000, unit=" /s"),
            Goal("the same: stored", 100, unit=" %"),
        ],
        group_commit.far_entity,
    ),
    Line(
        "cpu",
        [
            Goal("CPU of a single write over bare psycopg, sync", 20, most=True, unit=" us"),
            Goal("CPU of a single write over bare psycopg, async", 25, most=True, unit=" us"),
        ],
        against_peers.client_cpu,
    ),
    Line(
        "append",
        [Goal("append_to on asyncpg / asyncpg's own statement", 0.7)],
        append_cost.append_to,
    ),
    Line(
        "tracing",
        [Goal("p99 of a write, with spans / without", 1.5, most=True)],
        tracing_cost.tracing,
    ),
    Line(
        "single",
        [Goal("single event, four tables / faststream-outbox, one table", 2.3)],
        against_peers.single,
    ),
]
