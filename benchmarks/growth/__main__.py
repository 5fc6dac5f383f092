"""``make bench-growth``: how costs grow, and whether the relay keeps up with a constant load.

Points of a curve are measured in turn, in rounds. ONLY=backlog,sustained selects parts.
"""

import argparse
import json
import logging
import signal
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator

from benchmarks.kept_results import save
from benchmarks.measure import load, machine

from dsql_outbox.testing import EmbeddedPostgres

from .curves import CURVES, Curve
from .sustained import SECONDS, SETTINGS, sustained

PARTS = (*(curve.name for curve in CURVES), "sustained")


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), metavar="PART,..")
    parser.add_argument("--rounds", type=int, default=3, help="of each point of a curve")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a constant load")
    parser.add_argument("--runs", type=int, default=3, help="of each setting under that load")
    parser.add_argument("--most", type=float, default=float("inf"), help="leave larger points out")
    parser.add_argument("--save", action="store_true", help="keep the results for `make plots`")
    return parser


def draw(server: EmbeddedPostgres, curve: Curve, rounds: int, most: float) -> dict[str, object]:
    """Measure a curve and print it; returns it as one JSON object."""
    points = [point for point in curve.points if point <= most]
    series: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for point in points:
            for name, value in curve.measure(server, point).items():
                series[name][point].append(value)
    print(f"{curve.name}: {curve.title} ({curve.up})")
    for name, values in series.items():
        medians = (
            f"{point:,g}: {statistics.median(found):,.4g}" for point, found in values.items()
        )
        print(f"  {name:<18} {'   '.join(medians)}", flush=True)
    return {
        "title": curve.title, "across": curve.across, "up": curve.up, "points": points,
        "series": {name: list(values.values()) for name, values in series.items()},
    }  # fmt: skip


def keep_up(server: EmbeddedPostgres, seconds: float, runs: int) -> Iterator[dict[str, object]]:
    """Run each setting under a constant load, in turn, and print what became of it."""
    for _ in range(runs):
        for setting in SETTINGS:
            run = sustained(server, setting, seconds)
            found = {**run._asdict(), "holds": run.holds}
            print(json.dumps(found), flush=True)
            yield found


def main() -> int:
    parser = options()
    given = parser.parse_args()
    parts = given.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    logging.getLogger("dsql_outbox").setLevel(logging.ERROR)
    before = load()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops the server
    with EmbeddedPostgres(settings={"max_wal_size": "4GB"}) as server:
        kept: dict[str, object] = {}
        for curve in (each for each in CURVES if each.name in parts):
            kept[curve.name] = draw(server, curve, given.rounds, given.most)
            if given.save:  # after each: the next may take minutes
                save("growth", before, {"rounds": given.rounds, "curves": kept})
        runs: list[object] = []
        for run in keep_up(server, given.seconds, given.runs) if "sustained" in parts else ():
            runs.append(run)
            if given.save:
                save("sustained", before, {"runs": runs})
    print(machine())
    return 0


if __name__ == "__main__":
    sys.exit(main())
