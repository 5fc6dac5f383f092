"""``make bench-peers``: the library beside bare drivers, pgbench and other libraries.

All run on one PostgreSQL with fsync on, in turn, each in a process and a database of its
own; ONLY=batch,relay selects lines. Ratios are medians of the rounds' ratios. A peer
that cannot be started, or fails in a line, is named with the reason. Exits with 1 if the library
itself fails. Every relay is given the same sink, a
function in its process that acknowledges. `make page ONLY=steady` has the writer in a process
of its own.
"""

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence

from benchmarks.measure import machine

from dsql_outbox.testing import EmbeddedPostgres

from .contestants import (
    CONTESTANTS,
    LINES,
    OWN,
    OWN_RELAY,
    OWN_RUNG,
    OWN_SYNC,
    ComparedLine,
    UnknownLines,
    select_lines,
)
from .field import Entry, Field
from .peer_table import Failure, Row, descriptions, heading, rows


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
    measured = field.rounds(_work(field, line, given.share), given.rounds)
    found = rows(line, {entry.contestant: each for entry, each in measured.items()})
    failed = [Failure(*each, why) for each, why in field.failed.items() if each.line == line.name]
    told: list[Row | Failure] = [*found, *failed]
    if given.json:
        print(*(json.dumps(each.as_json()) for each in told), sep="\n", flush=True)
    else:
        print(heading(line), *told, "", sep="\n", flush=True)


def compare_all(
    server: EmbeddedPostgres, lines: Sequence[ComparedLine], given: argparse.Namespace
) -> tuple[Mapping[str, str], set[str]]:
    """Measure lines; returns why contestants are missing, and which ones failed.

    Lines that relay have databases of their own: what others wrote must not wait there.
    """
    missing: dict[str, str] = {}
    failed: set[str] = set()
    for relays in (False, True):
        if of_kind := [line for line in lines if line.relays == relays]:
            with Field(server, CONTESTANTS) as field:
                for line in of_kind:
                    field.start()
                    compare(field, line, given)
                missing |= field.missing
                failed |= {entry.contestant for entry in field.failed}
    return missing, failed


def main() -> int:
    parser = options()
    given = parser.parse_args()
    try:
        lines = select_lines(given.only)
    except UnknownLines as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops the server
    with EmbeddedPostgres(settings={"max_wal_size": "4GB"}) as server:
        missing, failed = compare_all(server, lines, given)
    if given.json:
        for name, why in missing.items():
            print(json.dumps({"contestant": name, "missing": why}))
    else:
        print(*descriptions(CONTESTANTS, missing), sep="\n")
        print(f"{machine()}; {given.rounds} rounds, medians and half the spread")
    return 1 if failed & {OWN, OWN_RUNG, OWN_SYNC, OWN_RELAY} else 0


def _work(field: Field, line: ComparedLine, share: float) -> dict[Entry, int]:
    known = {each.name: each for each in CONTESTANTS}
    entries = field.entries(line.name)
    return {entry: line.events_of(known[entry.contestant], share) for entry in entries}


if __name__ == "__main__":
    sys.exit(main())
