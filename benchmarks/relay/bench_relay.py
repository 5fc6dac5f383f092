"""``make bench-relay``: compare the relay with bare loops in the same run.

The parts are:

- drain: a null sink, compared with bare select and delete
- writes: row changes and statements per batch
- backlog: a batch at a long backlog, and with dead rows
- nats: compared with nats-py
- arriving: two publisher processes
- doorbell: writer and publisher in one process
- held: as doorbell, next to a blocked subject
- memory

Exits with 1 when a target is missed.
"""

import argparse
import logging
import signal
import sys

from benchmarks.measure import Target, machine

from dsql_outbox.testing import EmbeddedPostgres, NatsServer

from .doorbell import doorbell, held
from .drain import drain, profile, writes
from .long_backlog import backlog, memory
from .nats import arriving, rate

PARTS = ("drain", "writes", "backlog", "nats", "arriving", "doorbell", "held", "memory")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--rounds", type=int, default=5, help="of drain and nats")
    parser.add_argument("--rows", type=int, default=50_000, help="of a drain, and of a NATS round")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="rows that wait")
    parser.add_argument("--dead", type=int, default=200_000, help="dead rows")
    parser.add_argument("--held", type=int, default=100_000, help="rows of a blocked subject")
    parser.add_argument("--seconds", type=float, default=15, help="of arriving, doorbell, memory")
    parser.add_argument("--a-second", type=int, default=10_000, help="events per second to insert")
    parser.add_argument("--publish-options", default="", help="further options of the publishers")
    parser.add_argument("--profile", action="store_true", help="only profile a drain")
    return parser


def measure(
    given: argparse.Namespace, server: EmbeddedPostgres, broker: NatsServer
) -> list[Target]:
    """Run the selected parts."""
    parts = {
        "drain": lambda: drain(server, given.rows, given.rounds),
        "writes": lambda: writes(server, given.rows),
        "backlog": lambda: backlog(server, given.backlog, given.dead),
        "nats": lambda: rate(server, broker, given.rows, given.rounds),
        "arriving": lambda: arriving(
            server, broker, given.a_second, given.seconds, given.publish_options
        ),
        "doorbell": lambda: doorbell(server, broker, 200, given.seconds),
        "held": lambda: held(server, broker, given.held, 200, given.seconds),
        "memory": lambda: memory(server, given.backlog, given.seconds),
    }
    found: list[Target] = []
    for name in given.only.split(","):
        print(name, flush=True)
        found += parts[name]()
    return found


def main() -> int:
    parser = options()
    given = parser.parse_args()
    if unknown := set(given.only.split(",")) - set(PARTS):
        parser.error(f"unknown parts: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    logging.getLogger("dsql_outbox").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops the servers
    with EmbeddedPostgres(settings={"max_wal_size": "4GB"}) as server, NatsServer() as broker:
        if given.profile:
            profile(server, given.rows)
            return 0
        found = measure(given, server, broker)
    print(f"{machine()}; {given.rounds} rounds, medians and half the spread")
    print(*found, sep="\n")
    return 0 if all(target.holds for target in found) else 1


if __name__ == "__main__":
    sys.exit(main())
