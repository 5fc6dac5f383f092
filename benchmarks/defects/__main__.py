"""``make defects``: which tests find which planted defect.

Each defect of `planted` is put into a copy of the checkout, alone, and tests run there: those that
found it in an earlier run, then the unit tests of its room, then those of a later kind, until one
has found it. With `--all` all tests of the room run, and all that find it are counted. A test finds
a defect if it fails with it, and passes without it right after. The results stay in found.json,
beside those of earlier runs. It exits with 1 if a defect was not found.
"""

import os
import re
import signal
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from tests.support.checkout import ROOT, copy_checkout

from .planted import DEFECTS, Defect, NoSuchText

FOUND: Final = Path(__file__).with_name("found.json")

SHOWN: Final = 3
"""The most tests that are named, and that fail before a run ends, unless all are asked for."""

LIMIT: Final = 900.0
"""Seconds of the tests of one kind: with a defect they may wait for ever."""

KINDS: Final = ("unit", "integration", "faults")

BESIDE: Final = {
    "outbox": ("writer", "publisher"),
    "schema": ("writer", "publisher", "operations", "inbox"),
    "writer": ("outbox",),
}
"""Rooms whose tests are near a room, too."""


class Found(msgspec.Struct, omit_defaults=True):
    """What the tests in `ran` made of a defect: `count` found it, of which `tests` are the first.

    Without `all`, a run ends soon after the first. `late` says that tests had not ended in time.
    """

    day: str
    ran: list[str]
    count: int = 0
    tests: list[str] = []
    all: bool = False
    late: bool = False


class Copy:
    """A copy of the checkout, and the tests that run there."""

    def __init__(self, folder: Path, *, workers: int, all_tests: bool) -> None:
        copy_checkout(ROOT, folder)
        (folder / ".venv").symlink_to(sys.prefix)
        self._folder = folder
        self._all = all_tests
        self._pytest = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-n", str(workers)]
        self._pytest += ["--dist", "worksteal", "-m", "not (slow or pooler or package or site)"]

    def look_for(self, defect: Defect, known: Sequence[str]) -> Found:
        """Plant a defect, and run the tests that found it before, and those near it."""
        found = Found(datetime.now(UTC).date().isoformat(), [], all=self._all)
        path = self._folder / defect.file
        right = path.read_text()
        first = [] if self._all else [test for test in known if self._has(test)]
        for paths in (*([first] if first else []), *self._near(defect.file)):
            path.write_text(defect.plant(right))
            failed, late = self._run(paths)
            path.write_text(right)
            if failed:
                failed -= self._run(sorted(failed))[0]
            found.ran += paths
            found.late |= late
            found.count += len(failed)
            found.tests = [*found.tests, *sorted(failed)][:SHOWN]
            if found.count and not self._all:
                break
        return found

    def _has(self, test: str) -> bool:
        """Whether the file of a test is there, with the function. It may have been renamed."""
        path, _, name = test.partition("::")
        file = self._folder / path
        return file.is_file() and f"def {name.partition('[')[0]}(" in file.read_text()

    def _near(self, file: str) -> Iterator[list[str]]:
        """The tests near a file, of one kind after the other."""
        room = file.removeprefix("src/dsql_outbox/").partition("/")[0]
        for kind in KINDS:
            paths = [f"tests/{kind}/{each}" for each in (room, *BESIDE.get(room, ()))]
            if here := [path for path in paths if (self._folder / path).is_dir()]:
                yield here
        if room == "brokers":
            yield ["tests/contract"]

    def _run(self, tests: Sequence[str]) -> tuple[set[str], bool]:
        """The tests that failed, and whether some had not ended in time."""
        command = [*self._pytest, *([] if self._all else [f"--maxfail={SHOWN}"]), *tests]
        environment = os.environ | {"PYTHONPATH": str(self._folder / "src")}
        with subprocess.Popen(
            command,
            cwd=self._folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as pytest:
            try:
                said, late = pytest.communicate(timeout=LIMIT)[0], False
            except subprocess.TimeoutExpired:
                os.killpg(pytest.pid, signal.SIGINT)  # its servers end with it
                said, late = pytest.communicate()[0], True
        failed = set(re.findall(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", said, re.MULTILINE))
        if "ERROR: not found" in said:  # a test of an earlier run, whose parameters were renamed
            return set(), late
        if not (failed or late) and pytest.returncode:
            sys.exit(f"{' '.join(command)}\n{said[-3000:]}")
        return failed, late


def read() -> dict[str, Found]:
    """The results so far, of defects that are still planted."""
    kept = msgspec.json.decode(FOUND.read_bytes(), type=dict[str, Found]) if FOUND.exists() else {}
    return {each.name: kept[each.name] for each in DEFECTS if each.name in kept}


def line(name: str, found: Found) -> str:
    """A line of the table."""
    more = "" if found.all else "+"
    by = ", ".join(test.removeprefix("tests/") for test in found.tests)
    late = ", late" if found.late else ""
    return f"{name:<45} {found.count or 'NONE'}{more if found.count else ''}{late}  {by}"


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only those with one in their file and name")
    parser.add_argument("--new", action="store_true", help="only those without a result")
    parser.add_argument("--all", action="store_true", help="run all tests, and count those")
    parser.add_argument("--show", action="store_true", help="show the results, and run nothing")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    results = read()
    chosen = [
        each
        for each in DEFECTS
        if any(part in f"{each.file} {each.name}" for part in given.only.split(","))
        and not (given.new and each.name in results)
    ]
    if given.show:
        print(*(line(*each) for each in results.items()), sep="\n")
        return 0
    with TemporaryDirectory() as folder:
        copy = Copy(Path(folder) / "checkout", workers=given.workers, all_tests=given.all)
        for defect in chosen:
            try:
                kept = results.get(defect.name)
                found = copy.look_for(defect, kept.tests if kept else [])
            except NoSuchText as error:
                print(error, flush=True)
                results.pop(defect.name, None)
                continue
            print(line(defect.name, found), flush=True)
            results = read() | {defect.name: found}  # another run may keep results, too
            FOUND.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")
    return 0 if all(each.name in results and results[each.name].count for each in chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
