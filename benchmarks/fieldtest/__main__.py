"""``make fieldtest``: six harms to a relay, over each outbox library that can be installed.

Each trial has a database and a broker of its own: 2,000 events of 50 keys are relayed while
something is done to the relay, the broker or the database. The columns count events that were
lost, that arrived behind a later one of their key, and that arrived again. Each number is the sum
of all seeds, with how many seeds had any. docs/fieldtest.md says what each harm does.

Four servers run trials at the same time. The folder of logs gets a file per trial, with a line for
each message and for each thing that was done. Exits with 1 if dsql-outbox lost or reordered an
event.
"""

import argparse
import json
import platform
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event
from time import monotonic
from typing import NamedTuple, TypeVar

from benchmarks.measure import machine
from benchmarks.peers.contestants import ROOT
from benchmarks.simulation.peer_defects import PEER_DEFECTS

from dsql_outbox.testing import EmbeddedPostgres

from .harms import HARMS, Harm
from .judge import Result
from .lane import Lane
from .libraries import LIBRARIES, OWN, Library
from .table import Report, markdown, markdown_libraries, text
from .trial import ProgramFailed, Size
from .versions import versions

_LANES = 4  # of which most wait, for a lease or for a retry

_SETTINGS = {"fsync": "off"}  # a killed server loses nothing by that: no harm cuts the power

_Named = TypeVar("_Named", Library, Harm)


class UnknownName(ValueError):
    """A selection names something that does not exist."""


class _Job(NamedTuple):
    library: Library
    seed: int


def options() -> argparse.ArgumentParser:
    libraries = ", ".join(each.name for each in LIBRARIES)
    harms = ", ".join(each.name for each in HARMS)
    parser = argparse.ArgumentParser("python -m benchmarks.fieldtest", description=__doc__)
    parser.add_argument("--only", default="", metavar="LIBRARY,..", help=f"of {libraries}")
    parser.add_argument("--harms", default="", metavar="HARM,..", help=f"of {harms}")
    parser.add_argument(
        "--defect", choices=PEER_DEFECTS, default="", help=f"plant this defect into {OWN}, alone"
    )
    parser.add_argument("--seeds", type=int, default=2, help="how many seeds, from the first (2)")
    parser.add_argument("--first-seed", type=int, default=1, help="(1)")
    parser.add_argument("--events", type=int, default=Size().events, help="(2000)")
    parser.add_argument("--keys", type=int, default=Size().keys, help="(50)")
    parser.add_argument("--logs", type=Path, default=ROOT / "build" / "fieldtest", metavar="FOLDER")
    parser.add_argument("--json", action="store_true", help="one JSON object with all results")
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="print the tables of such an object, run nothing"
    )
    return parser


def select(only: str, known: Sequence[_Named]) -> list[_Named]:
    """The ones that ``a,b`` names; all without a name. Raises `UnknownName`."""
    names = {each.name: each for each in known}
    asked = only.split(",") if only else list(names)
    if unknown := [name for name in asked if name not in names]:
        raise UnknownName(f"no {', '.join(map(repr, unknown))}: there are {', '.join(names)}")
    return [names[name] for name in asked]


def run(
    libraries: Sequence[Library], harms: Sequence[Harm], seeds: range, size: Size, logs: Path
) -> Report:
    """Run the trials of libraries that are installed, some at a time."""
    started = monotonic()
    logs.mkdir(parents=True, exist_ok=True)
    known = versions(libraries)
    missing = dict(known.missing)
    stop = Event()
    jobs: SimpleQueue[_Job] = SimpleQueue()
    for library in libraries:
        for seed in seeds if library.name not in missing else ():
            jobs.put(_Job(library, seed))

    def work() -> list[Result]:
        with EmbeddedPostgres(settings=_SETTINGS) as server:
            lane = Lane(server, logs, size, stop)
            return [_noted(each) for job in _taken(jobs, stop) for each in _trials(lane, job)]

    def _noted(result: Result) -> Result:
        with (logs / "results.jsonl").open("a") as file:  # of a run that is broken off, too
            print(json.dumps(result._asdict()), file=file)
        return result

    def _trials(lane: Lane, job: _Job) -> Iterator[Result]:
        began = monotonic()
        try:
            yield from lane.trials(job.library, job.seed, harms)
        except ProgramFailed as error:
            missing[job.library.name] = str(error)
        took = monotonic() - began
        print(f"{job.library.name}, seed {job.seed}: {took:.0f} s", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(_LANES) as lanes:
        found = [lanes.submit(work) for _ in range(_LANES)]
        try:
            results = [result for lane in found for result in lane.result()]
        finally:
            stop.set()
    conditions = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "events": size.events, "keys": size.keys,
        "seconds": round(monotonic() - started), "python": platform.python_version(),
        "machine": machine().replace("fsync on", "fsync off"),
    }  # fmt: skip
    return Report(results, known.found, missing, list(seeds), conditions)


def _taken(jobs: "SimpleQueue[_Job]", stop: Event) -> Iterator[_Job]:
    with suppress(Empty):
        while not stop.is_set():
            yield jobs.get_nowait()


def main() -> int:
    parser = options()
    given = parser.parse_args()
    try:
        libraries, harms = select(given.only, LIBRARIES), select(given.harms, HARMS)
        if given.defect:
            (own,) = select(OWN, LIBRARIES)
            libraries = [own._replace(defect=given.defect)]
    except UnknownName as error:
        parser.error(str(error))
    if given.page:
        report = Report.of_json(json.loads(given.page.read_text()))
        print(*markdown_libraries(report, libraries), sep="\n")
        print(*markdown(report, harms, libraries), sep="\n")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM stops the servers
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    size = Size(given.events, given.keys)
    report = run(libraries, harms, seeds, size, given.logs)
    if given.json:
        print(json.dumps(report.as_json()))
    else:
        for harm in harms:
            print(*text(report, harm, libraries), sep="\n")
        print(f"seeds {seeds[0]} to {seeds[-1]}; {report.conditions}; logs in {given.logs}")
    ours = [each for each in report.results if each.library == OWN]
    return int(any(each.lost or each.reordered for each in ours))


if __name__ == "__main__":
    sys.exit(main())
