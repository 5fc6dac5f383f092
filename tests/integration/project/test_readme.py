"""README, run: its commands and its code work as they stand there, in their order."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.checkout import ROOT, copy_checkout, files_of
from tests.support.telemetry.received_spans import view_received
from uv import find_uv_bin

from dsql_outbox.testing import OtlpReceiver

README = (ROOT / "README.md").read_text(encoding="utf-8")
TRACING = (ROOT / "docs/alerts.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, page: str = README) -> list[str]:
    return [block for found, block in _FENCED.findall(page) if found == language]


NOT_RUN = {
    "make demo": "it makes an environment and runs dsql-outbox demo, as test_demo.py does",
    "make test": "this is one of its tests",
}
"""The lines that are not run as they stand, and why."""

_KEPT = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "UV_INDEX_URL",
    "UV_DEFAULT_INDEX",
)
_PRELUDE = """
# The environment is empty; the packages come from uv's cache, if they are all there.
pip() { "$UV" pip "$@" --quiet --offline || "$UV" pip "$@" --quiet; }
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the embedded server's user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="readme-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def session() -> str:
    """All commands of the README as one script for bash. One of them runs its program."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return "\n".join([_PRELUDE, *(line for line in lines if line not in NOT_RUN)])


def empty_environment(home: Path) -> dict[str, str]:
    """What a new user has: Python on the path, and nothing else of ours."""
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python3").symlink_to(Path(sys.executable).resolve())
    cache = subprocess.check_output([find_uv_bin(), "cache", "dir"], text=True).strip()
    kept = {k: v for k, v in os.environ.items() if k in _KEPT or k.lower() in _KEPT}
    path = f"{home / 'bin'}{os.pathsep}/usr/local/bin{os.pathsep}/usr/bin{os.pathsep}/bin"
    return {**kept, "HOME": str(home), "PATH": path, "UV": find_uv_bin(), "UV_CACHE_DIR": cache}


def shell(script: str, cwd: Path, **variables: str) -> str:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=cwd,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_is_run_but_for_the_lines_that_are_named_with_a_reason() -> None:
    """Another language, a command without one, or a line that has gone is seen here."""
    assert {language for language, _ in _FENCED.findall(README)} == {"sh", "python"}
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert [line for line in lines if line in NOT_RUN] == list(NOT_RUN)


@pytest.mark.slow
def test_the_readme_runs_from_its_first_block_to_its_last_in_a_new_clone(folder: Path) -> None:
    clone = folder / "clone"
    copy_checkout(ROOT, clone)
    done = subprocess.run(
        ["bash", "-exc", session()],
        cwd=clone,
        env=empty_environment(folder / "home"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "committed version 1\n" in done.stdout
    messages = (clone / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    topics = [json.loads(line)["topic"] for line in messages]
    assert topics == ["events.LoanPaid"]
    assert [path for path in files_of(clone) if "mine" in path.parts] == []


def test_the_producer_example_is_the_one_in_the_readme() -> None:
    code = (ROOT / "examples" / "producer.py").read_text(encoding="utf-8").partition("\n\n")[2]
    assert blocks("python") == [code]


@pytest.mark.slow
def test_the_demo_sends_its_spans_where_it_is_told_and_links_to_their_trace(folder: Path) -> None:
    (block,) = [each for each in blocks("sh", TRACING) if "docker compose" in each]
    up, demo = block.splitlines()
    assert up == "docker compose up --detach"
    with OtlpReceiver() as receiver:
        shown = shell(demo.replace("http://localhost:4318", receiver.endpoint), folder)
        spans = receiver.spans
    assert {"outbox.write", "outbox.write.attempt", "outbox.wait"} <= {s.name for s in spans}
    ((event_id, page),) = re.findall(
        r"The most retried event, (\S+):.*\n(?:.*\n)+In Jaeger: (.*)\n", shown
    )
    (trace_id,) = {
        s.trace_id for s in view_received(spans) if s.attributes.get("outbox.event.id") == event_id
    }
    assert page == f"http://127.0.0.1:16686/trace/{trace_id}"


def test_files_that_the_readme_links_to_exist() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / link).exists(), link
