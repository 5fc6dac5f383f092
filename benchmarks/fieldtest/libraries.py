"""The libraries of the field test: how each is run, and what it promises. No I/O."""

import sys
from typing import NamedTuple

from benchmarks.peers.contestants import PEERS_PYTHON

from .adapters.program import LEASE


class Library(NamedTuple):
    """A library that is tested.

    `waiting` counts the rows that it still means to send, and `kept` those that it has given up
    and keeps. `order` says which order its documentation promises; empty if it promises none.
    `page` is what the adapter follows; empty for what is no package of the index. A `defect` of
    benchmarks/simulation/defects.py may be planted into our own.
    """

    name: str
    module: str
    waiting: str
    kept: str
    order: str
    settings: str
    page: str
    own: bool = False
    defect: str = ""

    @property
    def command(self) -> list[str]:
        """The command of its program, without the role and what follows it."""
        python = sys.executable if self.own else str(PEERS_PYTHON)
        planted = ["benchmarks.simulation.planted", self.defect] if self.defect else []
        return [python, "-m", *planted, f"benchmarks.fieldtest.adapters.{self.module}"]


OWN = "dsql-outbox"
ONE_RELAY = "for one relay"

_NONE = "SELECT 0"

LIBRARIES = (
    Library(
        OWN, "own", "SELECT count(*) FROM outbox.outbox",
        "SELECT count(*) FROM outbox.dead_letters", "per subject",
        f"lease {LEASE} s; else the defaults", "guarantees.md", own=True,
    ),
    Library(
        "faststream-outbox", "faststream_outbox", "SELECT count(*) FROM outbox",
        "SELECT count(*) FROM outbox_dlq", "",
        f"one worker, batches of 10, lease {LEASE} s, retries without end, dead letters kept",
        "https://faststream-outbox.modern-python.org/usage/relay/",
    ),
    Library(
        "pgqueuer", "pgqueuer",
        "SELECT count(*) FROM pgqueuer WHERE status IN ('queued', 'picked')",
        "SELECT count(*) FROM pgqueuer WHERE status = 'failed'", "",
        f"concurrency limit 1, heartbeat timeout {LEASE} s, database-level retries, failed jobs "
        "held",
        "https://pgqueuer.readthedocs.io/en/latest/guides/reliability/",
    ),
    Library(
        "procrastinate", "procrastinate",
        "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
        "SELECT count(*) FROM procrastinate_jobs WHERE status NOT IN ('todo', 'doing')", "per lock",
        f"a lock per key, concurrency 10, retries without end, stalled jobs retried after {LEASE} "
        "s",
        "https://procrastinate.readthedocs.io/en/stable/howto/advanced/locks.html",
    ),
    Library(
        "txoutbox", "txoutbox", "SELECT count(*) FROM outbox WHERE status = 'pending'",
        "SELECT count(*) FROM outbox WHERE status = 'dead'", "per key",
        f"strict ordering, visibility delay 1 s, lease {LEASE} s, attempts without end",
        "https://github.com/OsmnvAslan/txoutbox#delivery-semantics",
    ),
    Library(
        "eventsourcing", "eventsourcing",
        "SELECT count(*) FROM stored_events WHERE notification_id > coalesce((SELECT max("
        "notification_id) FROM notification_tracking WHERE application_name = 'events'), 0)",
        _NONE, "of all events",
        "a subscription that stores its position after each event; a refused message is sent "
        "again at once",
        "https://eventsourcing.readthedocs.io/en/stable/topics/projection.html",
    ),
    Library(
        "outbox-sqs", "outbox_sqs",
        "SELECT count(*) FROM outbox_events WHERE status IN ('pending', 'claimed')",
        "SELECT count(*) FROM outbox_events WHERE status = 'failed'", "",
        f"a group per key, claim timeout {LEASE} s; else the defaults",
        "https://github.com/basukinath/outbox-sqs#delivery-semantics",
    ),
    Library(
        "nats-outbox", "nats_outbox",
        "SELECT count(*) FROM outbox_events WHERE status = 'pending'",
        "SELECT count(*) FROM outbox_events WHERE status = 'failed'", ONE_RELAY,
        "a polling relay, batches of 100, retries without end",
        "https://pypi.org/project/nats-outbox/",
    ),
    Library(
        "a table and a loop", "home_made",
        "SELECT count(*) FROM outbox WHERE id > (SELECT id FROM place)", _NONE, "",
        "60 lines, no library", "", own=True,
    ),
)  # fmt: skip
