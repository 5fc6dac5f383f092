"""Which libraries are installed, and which versions."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from benchmarks.peers.contestants import PEERS_PYTHON

from .libraries import Library

_ASK = """
import json, sys
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class Versions(NamedTuple):
    """The versions of the libraries that can be run, and why others cannot."""

    found: Mapping[str, str]
    missing: Mapping[str, str]


def versions(libraries: Iterable[Library]) -> Versions:
    """Ask the environments of the libraries."""
    found, missing = dict[str, str](), dict[str, str]()
    for python in (sys.executable, str(PEERS_PYTHON)):
        of_python = [each for each in libraries if each.page and each.command[0] == python]
        try:
            known = _ask(python, [each.name for each in of_python])
        except OSError as error:
            known = {}
            why = f"{error.strerror}: {python}"
        else:
            why = f"not installed in {python}"
        found |= known
        missing |= {each.name: why for each in of_python if each.name not in known}
    return Versions(found, missing)


def _ask(python: str, distributions: Iterable[str]) -> dict[str, str]:
    command = [python, "-c", _ASK, *distributions]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, str] = json.loads(done.stdout)
    return answer
