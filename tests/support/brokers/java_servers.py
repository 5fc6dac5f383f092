"""Servers that are written in Java: their jars from Maven Central, and how to start them."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent / "java"
_HEAP: Final = "-Xmx256m"


class MissingJava(Exception):
    """Java or Maven is not there, or Maven cannot get the jars; the text says which."""


def java(name: str, main: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command that runs class `main` with the jars of ``java/NAME.xml``.

    Maven fetches the jars once, into the environment. Raises `MissingJava`.
    """
    program, classes = _program("java"), _jars(name) / "*"
    return [program, _HEAP, "-XX:+UseSerialGC", *options, "-cp", str(classes), main, *arguments]


def _program(name: str) -> str:
    if (found := shutil.which(name)) is None:
        raise MissingJava(f"{name} is not on the PATH: install a JDK of 17 or later, and Maven")
    return found


def _jars(name: str) -> Path:
    folder = Path(sys.prefix) / "jars" / name
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    what = ["-q", "-B", "-f", str(_HERE / f"{name}.xml"), "dependency:copy-dependencies"]
    where = ["-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"]
    fetched = subprocess.run(
        [_program("mvn"), *what, *where], check=False, capture_output=True, text=True
    )
    if fetched.returncode:
        lines = [line for line in fetched.stdout.splitlines() if "ERROR" in line]
        raise MissingJava(f"Maven cannot get {name}: {' '.join(lines[:1])}")
    return unfinished.rename(folder)
