"""The contestants, with their features and limits. No I/O."""

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

PEERS_PYTHON = ROOT / ".venv" / "peers" / "bin" / "python"
"""The peers' environment; `make .venv/.peers` makes it."""

OWN = "dsql-outbox, AsyncWriter"
OWN_SYNC = "dsql-outbox, Writer"
OWN_RELAY = "dsql-outbox, Publisher"
OWN_RUNG = "dsql-outbox, doorbell"
ASYNCPG = "bare asyncpg"
PSYCOPG = "bare psycopg"
PSYCOPG_SYNC = "bare psycopg, sync"
PGBENCH = "pgbench"
FASTSTREAM = "faststream-outbox"


class Contestant(NamedTuple):
    """One that is compared; `module` and `arguments` start its process.

    `order` is what it promises of the order of events; `retries` what happens after a
    conflict or a lost connection. `share` is its part of the events of a relay's line,
    so that a slow relay does not take minutes. pgbench takes no orders: it has no module.
    `relay` is the process that relays its events apart, if its module does not.
    """

    name: str
    module: str
    tables: int
    order: str
    retries: str
    does: str
    arguments: tuple[str, ...] = ()
    own: bool = False
    share: float = 1.0
    relay: "Contestant | None" = None

    @property
    def command(self) -> list[str]:
        """The command of its process, without the database's URL and what follows it."""
        python = sys.executable if self.own else str(PEERS_PYTHON)
        return [python, "-m", f"benchmarks.peers.children.{self.module}"]


_SUBJECT = "per subject, gapless versions"
_FLOOR = "four inserts; parameters made beforehand, nothing checked, no answer"
_FLOOR_AND_OWN = "the same in batches; single: the statement of dsql-outbox"

_RELAY = Contestant("dsql-outbox, relay", "own_relay", 4, _SUBJECT, "", "", ("polls",), own=True)

CONTESTANTS = (
    Contestant(
        OWN, "own_writer", 4, _SUBJECT, "conflict, outage, in doubt",
        "checks, hashes, versions, positions, receipts", ("async",), own=True, relay=_RELAY,
    ),
    Contestant(
        OWN_RUNG, "own_writer", 4, _SUBJECT, "conflict, outage, in doubt",
        "the same, and a NOTIFY after the commit", ("rung",), own=True,
        relay=_RELAY._replace(arguments=("rung",)),
    ),
    Contestant(
        OWN_SYNC, "own_writer", 4, _SUBJECT, "conflict, outage, in doubt",
        "the same without asyncio", ("sync",), own=True,
    ),
    Contestant(
        OWN_RELAY, "own_relay", 4, _SUBJECT, "of messages, broker, database",
        "batches of 500; leases, dead letters, spans and metrics", ("stored",), own=True,
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
        "an outbox row and a NOTIFY in the caller's transaction", share=0.25,
    ),
    Contestant(
        "eventsourcing", "eventsourcing", 1, "global: locks the table",
        "OperationalError, 10 times", "an event row and a NOTIFY; versions are the caller's",
    ),
    Contestant(
        "pgqueuer", "pgqueuer", 2, "none", "none", "a job row and a log row; a NOTIFY by trigger",
        share=0.25,
    ),
    Contestant(
        "procrastinate", "procrastinate", 2, "per lock", "none",
        "a job row and its events by trigger; a NOTIFY", share=0.05,
    ),
    Contestant(
        "txoutbox", "txoutbox", 1, "per key, by id", "none",
        "an outbox row; a batch is 100 inserts in one transaction",
    ),
)  # fmt: skip


APART = (OWN, OWN_RUNG, FASTSTREAM, "eventsourcing", "pgqueuer", "procrastinate", "txoutbox")
"""The contestants that can write in one process and relay in another."""


class ComparedLine(NamedTuple):
    """A line of the comparison: what is done, and the contestant that the others are compared with.

    A line that relays runs in databases of its own.
    """

    name: str
    title: str
    floor: str
    events: int
    relays: bool = False

    def events_of(self, contestant: Contestant, share: float) -> int:
        """The events of a contestant in a round, of a run with a share of them: tens of them."""
        own = contestant.share if self.relays else 1.0
        return max(10, round(self.events * own * share / 10) * 10)


LINES = (
    ComparedLine("batch", "batches of 100, one connection", ASYNCPG, 10_000),
    ComparedLine("single", "one event at a time, one connection", PGBENCH, 2_000),
    ComparedLine("eight", "one event per transaction, eight connections", PGBENCH, 4_000),
    ComparedLine("relay", "stored events to a trivial sink", OWN_RELAY, 20_000, relays=True),
    ComparedLine(
        "ordered", "stored events to a trivial sink in order, ten in a row per key",
        OWN_RELAY, 20_000, relays=True,
    ),
)  # fmt: skip


class UnknownLines(ValueError):
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
