"""A real Jaeger 2 that adjusts clocks: the one of ``JAEGER``, or on the PATH."""

import json
import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.error import URLError
from urllib.request import urlopen

import msgspec

from dsql_outbox.servers.server_process import ServerProcess, free_port

from .parts import CACHE, MissingPart, go_build

T = TypeVar("T")

_SECONDS: Final = 10.0
_MODULE: Final = "github.com/jaegertracing/jaeger@v1.76.0"
"""Its ``cmd/jaeger`` is Jaeger 2.13, whose page compares hosts by the attribute ``ip`` only."""

_BUILT: Final = CACHE / "jaeger" / "jaeger"


class Jaeger(NamedTuple):
    """The base URLs of a Jaeger that runs, and whether its page knows hosts by their names."""

    otlp_url: str
    query_url: str
    draws_by_host: bool

    def get(self, path: str, kind: type[T]) -> T:
        """Return the answer to a request. Raises `HTTPError`, as for a trace it does not have."""
        with urlopen(f"{self.query_url}{path}", timeout=_SECONDS) as answer:
            return msgspec.json.decode(answer.read(), type=kind, strict=False)


@contextmanager
def start_jaeger(folder: Path) -> Generator[Jaeger]:
    """Run Jaeger inside the block, with its settings and its log in `folder`.

    Raises `MissingPart` if there is none.
    """
    program = _program()
    otlp, query, grpc, metrics = (free_port() for _ in range(4))
    settings = folder / "jaeger.json"
    settings.write_text(json.dumps(_settings(otlp, query, grpc, metrics)))
    urls = (f"http://127.0.0.1:{otlp}", f"http://127.0.0.1:{query}")
    jaeger = Jaeger(*urls, draws_by_host=program != str(_BUILT))
    process = ServerProcess("Jaeger", [program, "--config", str(settings)], folder / "jaeger.log")
    try:
        process.wait_until_ready(lambda: _answers(jaeger))
        yield jaeger
    finally:
        process.stop()


def _settings(otlp: int, query: int, grpc: int, metrics: int) -> object:
    """Traces in memory, written immediately, and clocks adjusted as far as many set it."""
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
                "max_clock_skew_adjust": "30s",
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
    """``JAEGER``, the one on the PATH, or one that Go builds. Raises `MissingPart`."""
    named = os.environ.get("JAEGER") or shutil.which("jaeger")
    if named:
        return named
    try:
        return str(go_build(_BUILT, _MODULE, "./cmd/jaeger"))
    except (OSError, subprocess.CalledProcessError):
        raise MissingPart(
            "Jaeger: set JAEGER=/path/to/jaeger (2.0 or newer), or install Go"
        ) from None
