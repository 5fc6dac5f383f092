"""What users install: a wheel made from the sdist, in an environment with nothing else.

Built with the setuptools of this environment and filled from uv's cache, which
`make` has filled before: no request leaves the machine.
"""

import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from os import environ
from pathlib import Path

import pytest
from tests.support.checkout import PACKAGE, ROOMS, ROOT
from uv import find_uv_bin

pytestmark = pytest.mark.slow

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
INFO = f"dsql_outbox-{VERSION}.dist-info"
# What a fresh clone has and a build may use. Not the whole checkout: setuptools would
# find the list of files that an earlier build left behind and believe it.
SOURCES = ["pyproject.toml", "setup.py", "uv.lock", "README.md", "LICENSE", "src"]
DASHBOARDS = ROOT / "observability" / "grafana"  # for a server, not for Python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the sdist, made from a copy of the checkout."""
    clone, out = tmp_path_factory.mktemp("a clone"), tmp_path_factory.mktemp("dist")
    for name in [*SOURCES, *ROOMS]:
        copy(ROOT / name, clone / name)
    run("uv", "build", "--no-build-isolation", "--python", sys.executable, "-o", out, cwd=clone)
    assert len(list(out.glob("*.tar.gz"))) == 1
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that has the command and no other extra."""
    return environment(wheel, tmp_path_factory.mktemp("venv"), "binary", "cli")


@pytest.fixture(scope="module")
def producer(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment that has what a producer needs, and no command."""
    return environment(wheel, tmp_path_factory.mktemp("producer"), "binary")


def environment(wheel: Path, venv: Path, *extras: str) -> Path:
    """The Python of a new environment in `venv` that has the wheel and what these extras need."""
    python, lock = venv / "bin" / "python", venv / "pylock.toml"
    run("uv", "venv", "--quiet", "--python", sys.executable, "--allow-existing", venv)
    export = ["--frozen", "--no-dev", "--no-emit-project", "--format", "pylock.toml"]
    wanted = [f"--extra={extra}" for extra in extras]
    run("uv", "export", "--quiet", *export, *wanted, "-o", lock, cwd=ROOT)
    run("uv", "pip", "install", "--quiet", "--python", python, "-r", lock)
    run("uv", "pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    return python


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        built = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, target, symlinks=True, ignore=built)
    else:
        shutil.copy(source, target)


def run(*command: object, cwd: Path | None = None) -> str:
    words = [find_uv_bin() if word == "uv" else str(word) for word in command]
    done = finished(words, cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(*command: object, cwd: Path, **variables: str) -> str:
    """What a command that must fail prints to standard error; it must exit with code 2."""
    done = finished([str(word) for word in command], cwd, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def finished(
    words: list[str], cwd: Path | None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command's end; it cannot see this checkout, nor settings of whoever runs the tests."""
    hidden = ("PYTHONPATH", "DSQL_OUTBOX_", "OTEL_")
    env = {name: value for name, value in environ.items() if not name.startswith(hidden)}
    return subprocess.run(
        words, cwd=cwd, env=env | variables, check=False, capture_output=True, text=True
    )


def shipped(suffix: str) -> Iterator[str]:
    """The files of the package in the checkout, as a wheel names them."""
    yield from (f"dsql_outbox/{path.name}" for path in PACKAGE.glob(f"*{suffix}"))
    for folder in (path.resolve() for path in PACKAGE.iterdir() if path.is_dir()):
        for path in folder.rglob(f"*{suffix}"):
            if DASHBOARDS in path.parents:
                continue
            yield f"dsql_outbox/{folder.name}/{path.relative_to(folder)}"


@pytest.mark.parametrize(
    ("target", "lost"), [("sdist", "gone"), ("wheel", "a text file"), ("editable", "gone")]
)
def test_a_clone_without_the_links_does_not_build(tmp_path: Path, target: str, lost: str) -> None:
    for name in [*SOURCES, *ROOMS]:
        copy(ROOT / name, tmp_path / name)
    for room in ROOMS:
        (link := tmp_path / "src" / "dsql_outbox" / room).unlink()
        if lost == "a text file":  # what git makes of a link where it may make none
            link.write_text(f"../../{room}")
    words = ["build", f"--{target}", "-o", tmp_path / "dist", tmp_path]
    if target == "editable":
        words = ["pip", "install", "--no-deps", "--target", tmp_path / "dist", "-e", tmp_path]
    options = ["--offline", "--no-build-isolation", "--python", sys.executable]
    done = finished([find_uv_bin(), *map(str, [*words, *options])], cwd=tmp_path)
    assert done.returncode != 0
    assert f"src/dsql_outbox/{ROOMS[0]} has no code. It must be a symbolic link" in " ".join(
        done.stderr.split()
    )
    assert not list(tmp_path.glob("dist/*dsql_outbox*"))


@pytest.mark.parametrize("suffix", [".py", ".sql", ".json", ".html", ".css", ".js", ".svg"])
def test_the_wheel_has_every_file_of_the_package(wheel: Path, suffix: str) -> None:
    in_wheel = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(suffix)}
    assert in_wheel == {*shipped(suffix)}


def test_the_wheel_is_typed_and_holds_the_package_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "dsql_outbox/py.typed" in names
    assert {name.partition("/")[0] for name in names} == {"dsql_outbox", INFO}
    assert f"{INFO}/licenses/LICENSE" in names


def test_every_entry_point_loads(wheel: Path, python: Path, tmp_path: Path) -> None:
    declared = ConfigParser()
    declared.read_string(zipfile.ZipFile(wheel).read(f"{INFO}/entry_points.txt").decode())
    assert {"console_scripts", "dsql_outbox.sinks"} == set(declared.sections())
    code = (
        "from importlib.metadata import distribution\n"
        "points = distribution('dsql-outbox').entry_points\n"
        "assert all(callable(point.load()) for point in points)\n"
        "print(*sorted(point.name for point in points))\n"
    )
    loaded = run(python, "-c", code, cwd=tmp_path).split()
    assert loaded == sorted(name for section in declared.sections() for name in declared[section])


def test_the_dependencies_are_declared_and_fit(python: Path) -> None:
    run("uv", "pip", "check", "--python", python)


def test_the_package_works_where_nothing_else_is_installed(python: Path, tmp_path: Path) -> None:
    code = (
        "import dsql_outbox\n"
        "from dsql_outbox.schema.named_statements import FOLDER, read_sql\n"
        "assert 'site-packages' in dsql_outbox.__file__\n"
        "for name in dsql_outbox.__all__:\n"
        "    getattr(dsql_outbox, name)\n"
        "names = [path.name.removesuffix('.sql') for path in (FOLDER / 'statements').iterdir()]\n"
        "print(sum(bool(read_sql('statements', name)) for name in names))\n"
    )
    count = int(run(python, "-c", code, cwd=tmp_path))
    assert count == len(list((ROOT / "schema" / "statements").glob("*.sql")))


def test_the_command_tells_its_version(python: Path, tmp_path: Path) -> None:
    told = run(python.with_name("dsql-outbox"), "--version", cwd=tmp_path)
    assert told == f"dsql-outbox, version {VERSION}\n"
    assert run(python, "-m", "dsql_outbox", "--version", cwd=tmp_path) == told


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("nats", ["publish", "--database", "postgresql://nowhere", "--sink", "nats://nowhere"]),
        ("kafka", ["publish", "--database", "postgresql://nowhere", "--sink", "kafka://nowhere"]),
        ("sqs", ["publish", "--database", "postgresql://nowhere", "--sink", "sqs://nowhere"]),
        ("dsql", ["schema", "check", "--database", "dsql://admin@abc.dsql.eu-west-1.on.aws/x"]),
        ("demo", ["demo"]),
    ],
)
def test_a_missing_extra_is_one_line_that_says_what_to_install(
    python: Path, tmp_path: Path, extra: str, words: list[str]
) -> None:
    text = refused(python.with_name("dsql-outbox"), *words, cwd=tmp_path)
    assert len(text.splitlines()) == 1
    assert f" needs the extra [{extra}]: pip install 'dsql-outbox[{extra}]'" in text


USE = """
import asyncio
import sys
from dsql_outbox import AsyncWriter, Database, Entity, Event, Publisher, Writer, open_sink
from dsql_outbox.schema import apply

event = lambda number: Event.new("CarSold", [Entity("Car", number, {})])

async def main(database):
    async with AsyncWriter(database) as writer:
        await writer.write(event("2"))
    async with open_sink("jsonl:messages.jsonl") as sink:
        await Publisher(database, sink).run(until_empty=True)

database = Database(sys.argv[1])
apply(database)
with Writer(database) as writer:
    writer.write(event("1"))
asyncio.run(main(database))
print(*{name.partition(".")[0] for name in sys.modules} & {"click", "rich"})
"""


def test_a_producer_writes_and_relays_without_the_command_line(
    producer: Path, tmp_path: Path, database_url: str
) -> None:
    listed = run("uv", "pip", "list", "--format=freeze", "--python", producer)
    assert {"click", "rich"} & {line.partition("==")[0] for line in listed.splitlines()} == set()
    assert run(producer, "-c", USE, database_url, cwd=tmp_path) == "\n"
    assert len((tmp_path / "messages.jsonl").read_text().splitlines()) == 2


def test_the_command_without_its_extra_names_an_install_command_that_works(
    producer: Path, tmp_path: Path
) -> None:
    text = refused(producer.with_name("dsql-outbox"), "--version", cwd=tmp_path)
    told, _, command = text.partition(": pip install ")
    assert told == "Error: the command dsql-outbox needs the extra [cli]"
    (wanted,) = shlex.split(command)
    assert wanted == "dsql-outbox[cli]"
    install = [find_uv_bin(), "pip", "install", "--dry-run", "--python", str(producer), wanted]
    would = finished(install, tmp_path).stderr
    assert "+ click==" in would
    assert "dsql-outbox" not in would, "the installed one stays, wherever it came from"


NO_LIBPQ = {"PSYCOPG_IMPL": "c"}
"""The driver is asked for an implementation that is not installed: it fails as without libpq."""


def test_the_command_without_libpq_is_one_line(python: Path, tmp_path: Path) -> None:
    text = refused(python.with_name("dsql-outbox"), "status", cwd=tmp_path, **NO_LIBPQ)
    assert len(text.splitlines()) == 1
    assert text.startswith(
        "Error: psycopg needs the extra [binary] or the system's libpq: pip install "
        "'dsql-outbox[binary]'"
    )


@pytest.mark.parametrize("name", ["Event", "MissingExtra", "Publisher", "Writer"])
def test_the_library_without_libpq_raises_missing_extra(
    producer: Path, tmp_path: Path, name: str
) -> None:
    code = f"from dsql_outbox import {name}"
    done = finished([str(producer), "-c", code], tmp_path, **NO_LIBPQ)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dsql_outbox.outbox.errors.MissingExtra: psycopg needs the extra [bin")
