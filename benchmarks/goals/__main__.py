"""``make goals``: measure the promises of writer and relay, and report whether each goal holds."""

import argparse
import json
import logging
import signal
import sys
from dataclasses import replace

from benchmarks.measure import machine

from .conditions import FULL, Conditions, Sizes
from .forget_goals import FORGET
from .goal import Result, UnknownGoals, results, select
from .relay_goals import RELAY
from .writer_goals import WRITER

GROUPS = {
    "writer": WRITER,
    "relay": RELAY,
    "forget": FORGET,
}


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.goals", description=__doc__)
    parser.add_argument("--only", default="", metavar="GROUP_OR_LINE,..", help="default: all")
    parser.add_argument("--full", action="store_true", help="more rows, rounds and seconds")
    parser.add_argument("--load", type=int, metavar="N", help="events of each load, instead")
    parser.add_argument("--json", action="store_true", help="one JSON object per goal")
    parser.add_argument("--list", action="store_true", help="list the lines and measure nothing")
    return parser


def main() -> int:
    parser = options()
    given = parser.parse_args()
    try:
        lines = select(given.only, GROUPS)
    except UnknownGoals as error:
        parser.error(str(error))
    if given.list:
        print(*(f"{line.name:<11} {goal.name}" for line in lines for goal in line.goals), sep="\n")
        return 0
    logging.getLogger("dsql_outbox").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops the servers
    found: list[Result] = []
    sizes = FULL if given.full else Sizes()
    with Conditions(replace(sizes, load=given.load or sizes.load)) as conditions:
        for line in lines:
            for result in results(line, conditions):
                found.append(result)
                print(json.dumps(result.as_json()) if given.json else result, flush=True)
    if not given.json:
        print(machine())
    return 1 if any(result.verdict == "misses" for result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
