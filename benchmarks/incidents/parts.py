"""The parts of the telemetry stack: what this machine cannot have, and what Go builds."""

import json
import os
import subprocess
from pathlib import Path

from tests.support.checkout import ROOT

CACHE = ROOT / ".venv" / ".cache"
"""The folder of what was downloaded or built, with a folder for each part."""


class MissingPart(Exception):
    """A real server is missing here; the text names it and a way to get it."""


def go_build(program: Path, module: str, package: str, *flags: str) -> Path:
    """Build a program of a Go module, unless that was done. The first build takes many minutes.

    Raises `OSError` or `CalledProcessError` if it cannot be built.
    """
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        print(f"Go builds {program.name}, which takes many minutes", flush=True)
        said = run("go", "mod", "download", "-json", module, cwd=program.parent)
        run("go", "build", *flags, "-o", str(program), package, cwd=Path(json.loads(said)["Dir"]))
    return program


def run(*command: str, cwd: Path) -> bytes:
    """Run a command, and return its output. Raises `OSError` or `CalledProcessError`."""
    # Without GOWORK, Go wants modules that are not in the download.
    environment = {**os.environ, "GOWORK": "off"}
    return subprocess.run(command, cwd=cwd, env=environment, check=True, capture_output=True).stdout
