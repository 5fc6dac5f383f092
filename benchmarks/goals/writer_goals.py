"""The goals of the writer."""

from . import against_peers, append_cost, statement_cost
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
]
