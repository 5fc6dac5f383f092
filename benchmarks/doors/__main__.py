"""``make bench-doors``: what each door costs, as a ratio to the bare call beside it.

A door is measured by the module `<name>_door` of this folder. Its `lines` are pairs of
functions that each store one event. They take turns, so that both meet the same machine.
Exits with 1 when a ratio is over the limit.
"""

import argparse
import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from time import perf_counter

from benchmarks.doors.line import Line
from benchmarks.measure import Target, embedded, machine, median_ratio

_LIMIT = 1.2
_SUFFIX = "_door"


def doors() -> list[str]:
    """Find the names of all doors that are measured."""
    found = Path(__file__).parent.glob(f"*{_SUFFIX}.py")
    return sorted(path.stem.removesuffix(_SUFFIX) for path in found)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(doors()), help="doors, with commas between")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=25, help="per round")
    return parser


def milliseconds(call: Callable[[], object], calls: int) -> float:
    """Measure the average time of a call."""
    began = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - began) / calls * 1000


def measure(line: Line, rounds: int, calls: int) -> Target:
    """Let a door and its bare call take turns."""
    for call in (line.bare, line.door):
        milliseconds(call, calls)
    gc.collect()
    found = [[milliseconds(call, calls) for call in (line.bare, line.door)] for _ in range(rounds)]
    bare, door = zip(*found, strict=True)
    name = f"{line.name} ({sorted(door)[rounds // 2]:.2f} ms)"
    return Target(name, median_ratio(door, bare), _LIMIT, most=True)


def lines_of(door: str, url: str) -> AbstractContextManager[Iterator[Line]]:
    """Open the lines of a door."""
    lines: AbstractContextManager[Iterator[Line]] = import_module(
        f"benchmarks.doors.{door}{_SUFFIX}"
    ).lines(url)
    return lines


def main() -> int:
    parser = options()
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := set(wanted) - set(doors()):
        parser.error(f"unknown doors: {', '.join(sorted(unknown))}; there are {', '.join(doors())}")
    logging.getLogger("dsql_outbox").setLevel(logging.ERROR)
    found: list[Target] = []
    for door in wanted:
        with embedded() as url, lines_of(door, url) as lines:
            for line in lines:
                found.append(measure(line, given.rounds, given.calls))
                print(found[-1], flush=True)
    print(f"ratios to the bare call, {given.rounds} rounds; {machine()}")
    return 0 if all(target.holds for target in found) else 1


if __name__ == "__main__":
    sys.exit(main())
