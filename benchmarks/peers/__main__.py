"""``make bench-peers``: the writer beside bare drivers, pgbench and other libraries.

All run on one PostgreSQL with fsync on, in turn, each in its own process and database;
ONLY=batch,single selects lines. Ratios are medians of the rounds' ratios. A peer that cannot
be started is named with the reason.
"""

import argparse
import json
import signal
import sys

from benchmarks.measure import machine

from dsql_outbox.testing import EmbeddedPostgres

from .contestants import CONTESTANTS, LINES, ComparedLine, UnknownLines, select_lines
from .field import Field
from .peer_table import descriptions, heading, rows


def options() -> argparse.ArgumentParser:
    names = ",".join(line.name for line in LINES)
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--only", default="", metavar="LINE,..", help=f"default: {names}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the events of each round")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    return parser


def compare(field: Field, line: ComparedLine, given: argparse.Namespace) -> None:
    """Measure a line and print its table."""
    work = dict.fromkeys(field.entries(line.name), max(1, round(line.events * given.share)))
    measured = field.rounds(work, given.rounds)
    found = rows(line, {entry.contestant: each for entry, each in measured.items()})
    if given.json:
        print(*(json.dumps(row.as_json()) for row in found), sep="\n", flush=True)
    else:
        print(heading(line), *found, "", sep="\n", flush=True)


def main() -> int:
    parser = options()
    given = parser.parse_args()
    try:
        lines = select_lines(given.only)
    except UnknownLines as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops the server
    server = EmbeddedPostgres(settings={"max_wal_size": "4GB"})
    with server, Field(server, CONTESTANTS) as field:
        field.start()
        for line in lines:
            compare(field, line, given)
        if given.json:
            for name, why in field.missing.items():
                print(json.dumps({"contestant": name, "missing": why}))
            return 0
        print(*descriptions(CONTESTANTS, field.missing), sep="\n")
        print(f"{machine()}; {given.rounds} rounds, medians and half the spread")
    return 0


if __name__ == "__main__":
    sys.exit(main())
