"""``make zip``: the functions for AWS Lambda, build/lambda-x86_64.zip and build/lambda-arm64.zip.

Holds both functions, this project's wheel and the locked versions of what they need,
with the extras for libpq, Aurora DSQL, the doorbell, OTLP and SQS, as wheels for
Lambda's systems. Left out: botocore's descriptions of services, but those that these
extras use.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from uv import find_uv_bin

ROOT = Path(__file__).parents[2]
FUNCTIONS = (
    "handler.py",
    "relay.py",
    "environment.py",
    "answers.py",
    "spans.py",
    "at_return.py",
)
SOURCES = ("pyproject.toml", "setup.py", "uv.lock", "README.md", "LICENSE", "src")
ROOMS = [path.name for path in (ROOT / "src/dsql_outbox").iterdir() if path.is_symlink()]
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
"""Lambda with Python 3.12 or newer is Amazon Linux 2023, which has glibc 2.34."""

MACHINES = {"x86_64": 62, "arm64": 183}
"""The machine in an ELF file's header (EM_X86_64, EM_AARCH64)."""

EXTRAS = ("binary", "dsql", "lambda", "otlp", "sqs")

SERVICES = {"dsql", "lambda", "sqs", "sts"}
"""Folders of botocore/data that are kept: tokens, doorbell, sink, and roles by web identity."""

NOT_SHIPPED = ("__pycache__", "*.pyc", "*.pyi", "tests", "bin")
RECORDS = ("RECORD", "REQUESTED", "direct_url.json", "uv_cache.json")
"""What an installer leaves for later; with times and folders of this machine."""


def run(*command: object) -> None:
    """Run uv; what goes wrong there ends this program, in its words."""
    words = [find_uv_bin(), *map(str, command)]
    if subprocess.run(words, cwd=ROOT, check=False).returncode != 0:
        sys.exit(f"error: uv {command[0]} {command[1]} failed")


def build_wheel(folder: Path) -> Path:
    """This project's wheel, of a copy: setuptools leaves files beside what it builds."""
    clone = folder / "clone"
    for name in (*SOURCES, *ROOMS):
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, clone / name, symlinks=True, ignore=ignored)
        else:
            clone.mkdir(exist_ok=True)
            shutil.copy(source, clone / name)
    run(
        "build", "--quiet", "--wheel", "--no-build-isolation",
        "--python", sys.executable, "--out-dir", folder, clone,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def requirements(folder: Path) -> Path:
    """The locked versions of what the function needs."""
    found = folder / "requirements.txt"
    extras = [word for name in EXTRAS for word in ("--extra", name)]
    run(
        "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project",
        *extras, "--output-file", found,
    )  # fmt: skip
    return found


def fill(target: Path, wheel: Path, locked: Path, machine: str, python: str) -> None:
    """Put everything in `target` that the zip shall hold."""
    where = ("--python-platform", PLATFORMS[machine], "--python-version", python)
    install = ("pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", *where)
    run(*install, "--target", target, "--requirements", locked)
    run(*install, "--target", target, wheel)
    for name in FUNCTIONS:
        shutil.copy(Path(__file__).with_name(name), target / name)
    for pattern in (*NOT_SHIPPED, *RECORDS):
        for path in [*target.rglob(pattern)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for service in [path for path in (target / "botocore" / "data").iterdir() if path.is_dir()]:
        if service.name not in SERVICES:
            shutil.rmtree(service)


def check_machine(target: Path, machine: str) -> None:
    """Refuse a library for another machine: Lambda would tell only when it is loaded."""
    for path in target.rglob("*.so*"):
        found = int.from_bytes(path.read_bytes()[18:20], "little")
        if found != MACHINES[machine]:
            sys.exit(f"error: {path.relative_to(target)} is not for {machine}: ELF {found}")


def pack(target: Path, out: Path) -> None:
    """Zip a folder: the same content gives the same file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(out, "w", ZIP_DEFLATED) as zipped:
        for path in sorted(path for path in target.rglob("*") if path.is_file()):
            entry = ZipInfo(path.relative_to(target).as_posix())
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o644 << 16  # Lambda reads it as another user
            zipped.writestr(entry, path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the zip files for AWS Lambda.")
    parser.add_argument("--python", default="3.13", help="the runtime's version (3.13)")
    parser.add_argument("--machine", choices=PLATFORMS, action="append", help="all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="a folder (build)")
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel, locked = build_wheel(folder), requirements(folder)
        for machine in options.machine or PLATFORMS:
            target, out = folder / machine, options.out / f"lambda-{machine}.zip"
            fill(target, wheel, locked, machine, options.python)
            check_machine(target, machine)
            pack(target, out)
            size = out.stat().st_size / 1e6
            print(
                f"{out}  {size:.1f} MB, Python {options.python}, handler.handler and relay.handler"
            )


if __name__ == "__main__":
    main()
