"""The contestants, with their features and limits. No I/O."""

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

PEERS_PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"
"""The peers' environment; `make .venv/.peers` makes it."""

OWN = "dsql-outbox, AsyncWriter"
OWN_SYNC = "dsql-outbox, Writer"
ASYNCPG = "bare asyncpg"
PSYCOPG = "bare psycopg"
PSYCOPG_SYNC = "bare psycopg, sync"
PGBENCH = "pgbench"
FASTSTREAM = "faststream-outbox"


class Contestant(NamedTuple):
    """One that is compared; `module` and `arguments` start its process.

    `order` is what it promises of the order of events; `retries` what happens after a
    conflict or a lost connection. pgbench is no process that takes orders: it has no module.
    """

    name: str
    module: str
    tables: int
    order: str
    retries: str
    does: str
    arguments: tuple[str, ...] = ()
    own: bool = False

    @property
    def command(self) -> list[str]:
        """The command of its process, without the database's URL and what follows it."""
        python = sys.executable if self.own else str(PEERS_PYTHON)
        return [python, "-m", f"benchmarks.peers.children.{self.module}"]


_SUBJECT = "per subject, gapless versions"
_FLOOR = "four inserts; parameters made beforehand, nothing checked, no answer"
_FLOOR_AND_OWN = "the same in batches; single: the statement of dsql-outbox"

CONTESTANTS = (
    Contestant(
        OWN, "own_writer", 4, _SUBJECT, "conflict, outage, in doubt",
        "checks, hashes, versions, positions, receipts", ("async",), own=True,
    ),
    Contestant(
        OWN_SYNC, "own_writer", 4, _SUBJECT, "conflict, outage, in doubt",
        "the same without asyncio", ("sync",), own=True,
    ),
    Contestant(ASYNCPG, "bare_asyncpg", 4, "the client's", "none", _FLOOR),
    Contestant(
        PSYCOPG, "bare_psycopg", 4, "the client's", "none", _FLOOR_AND_OWN, ("async",), own=True
    ),
    Contestant(
        PSYCOPG_SYNC, "bare_psycopg", 4, "the client's", "none", "the same without asyncio",
        ("sync",), own=True,
    ),
    Contestant(
        PGBENCH, "", 4, _SUBJECT, "none", "the statement of dsql-outbox, sent by a C program"
    ),
    Contestant(
        FASTSTREAM, "faststream_outbox", 1, "none", "none",
        "an outbox row and a NOTIFY in the caller's transaction",
    ),
    Contestant(
        "eventsourcing", "eventsourcing", 1, "global: locks the table",
        "OperationalError, 10 times", "an event row and a NOTIFY; versions are the caller's",
    ),
    Contestant(
        "pgqueuer", "pgqueuer", 2, "none", "none", "a job row and a log row; a NOTIFY by trigger"
    ),
    Contestant(
        "txoutbox", "txoutbox", 1, "per key, by id", "none",
        "an outbox row; a batch is 100 inserts in one transaction",
    ),
)  # fmt: skip


class ComparedLine(NamedTuple):
    """A line of the comparison: the kind of write, and the contestant that is its floor."""

    name: str
    title: str
    floor: str
    events: int


LINES = (
    ComparedLine("batch", "batches of 100, one connection", ASYNCPG, 10_000),
    ComparedLine("single", "one event at a time, one connection", PGBENCH, 2_000),
    ComparedLine("eight", "one event per transaction, eight connections", PGBENCH, 4_000),
)


class UnknownLines(ValueError):  # noqa: N818 - names the fault
    """A selection names a line that does not exist."""


def select_lines(only: str) -> list[ComparedLine]:
    """The lines that ``batch,single`` names, in that order; empty means all.

    Raises `UnknownLines`.
    """
    lines = {line.name: line for line in LINES}
    names = only.split(",") if only else list(lines)
    if unknown := [name for name in names if name not in lines]:
        raise UnknownLines(f"no line {', '.join(map(repr, unknown))}: there are {', '.join(lines)}")
    return [lines[name] for name in names]
