"""A real Jaeger 2 that adjusts clocks: found on the PATH, or built once by Go."""

import json
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

from dsql_outbox.servers import free_port
from dsql_outbox.servers.server_process import ServerProcess

from .parts import MissingPart

_MODULE: Final = "github.com/jaegertracing/jaeger"
_VERSION: Final = "v1.76.0"
"""The module's version of the commit that is also Jaeger 2.13.0."""

_COMMAND: Final = f"{_MODULE}/cmd/jaeger"
_CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dsql-outbox"


class Jaeger(NamedTuple):
    """The base URLs of a Jaeger that runs."""

    otlp_url: str
    query_url: str


@contextmanager
def start_jaeger(folder: Path) -> Generator[Jaeger]:
    """Run Jaeger inside the block, with its settings and its log in `folder`.

    Raises `MissingPart` if there is none and it cannot be built.
    """
    program = _program()
    otlp, query, grpc, metrics = (free_port() for _ in range(4))
    settings = folder / "jaeger.json"
    settings.write_text(json.dumps(_settings(otlp, query, grpc, metrics)))
    jaeger = Jaeger(f"http://127.0.0.1:{otlp}", f"http://127.0.0.1:{query}")
    process = ServerProcess("Jaeger", [program, "--config", str(settings)], folder / "jaeger.log")
    try:
        process.wait_until_ready(lambda: _answers(jaeger))
        yield jaeger
    finally:
        process.stop()


def _settings(otlp: int, query: int, grpc: int, metrics: int) -> object:
    """Traces in memory, written immediately, and clocks adjusted by up to an hour."""
    reader = {"pull": {"exporter": {"prometheus": {"host": "127.0.0.1", "port": metrics}}}}
    return {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {
                "traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}
            },
            "telemetry": {"metrics": {"readers": [reader]}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10_000}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "max_clock_skew_adjust": "1h",
                "enable_tracing": False,
                "http": {"endpoint": f"127.0.0.1:{query}"},
                "grpc": {"endpoint": f"127.0.0.1:{grpc}"},
            },
        },
        "receivers": {"otlp": {"protocols": {"http": {"endpoint": f"127.0.0.1:{otlp}"}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }


def _answers(jaeger: Jaeger) -> bool:
    try:
        with urlopen(f"{jaeger.query_url}/api/v3/services", timeout=1):
            return True
    except (URLError, OSError):
        return False


def _program() -> str:
    """``JAEGER``, the one on the PATH, or one that Go builds."""
    named = os.environ.get("JAEGER") or shutil.which("jaeger")
    return named or str(_built(_CACHE / "jaeger"))


def _built(cache: Path) -> Path:
    program = cache / f"jaeger-{_VERSION}"
    if program.exists():
        return program
    if shutil.which("go") is None:
        raise MissingPart("Jaeger: set JAEGER=/path/to/jaeger (2.13 or newer), or install Go")
    print("Go builds Jaeger once, which takes many minutes", flush=True)
    source = cache / "build"
    source.mkdir(parents=True, exist_ok=True)
    try:
        _write_module(source)
        _go("build", "-o", str(unfinished := program.with_suffix(".part")), _COMMAND, folder=source)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()[-1:]
        raise MissingPart(f"Jaeger: Go cannot build it: {' '.join(said)}") from error
    return unfinished.rename(program)


def _write_module(folder: Path) -> None:
    """Write the go.mod of a module that needs Jaeger, with the replacements of Jaeger's own.

    ``go install`` refuses a module with replacements.
    """
    found = json.loads(_go("mod", "download", "-json", f"{_MODULE}@{_VERSION}", folder=folder))
    theirs = json.loads(_go("mod", "edit", "-json", found["GoMod"], folder=folder))
    lines = ["module telemetry", f"go {theirs['Go']}", f"require {_MODULE} {_VERSION}"]
    lines += [_replacement(each["Old"], each["New"]) for each in theirs.get("Replace") or ()]
    (folder / "go.mod").write_text("\n".join(lines) + "\n")


def _replacement(old: dict[str, str], new: dict[str, str]) -> str:
    return f"replace {old['Path']} => {new['Path']} {new['Version']}"


def _go(*words: str, folder: Path) -> str:
    """Run Go in `folder`. Raises `CalledProcessError`."""
    done = subprocess.run(
        ["go", *words],
        cwd=folder,
        env={**os.environ, "GOFLAGS": "-mod=mod"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout
