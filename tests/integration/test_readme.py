"""README, run: every command in it works as it stands there."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests._support.jaeger import Jaeger, serving
from tests._support.otlp_files import spans_by_service

from dsql_outbox.testing import OtlpReceiver

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block_with(text: str, language: str = "sh") -> str:
    (found,) = [b for b in blocks(language) if text in b]
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the embedded server's user may enter, with the sample events in it."""
    folder = Path(tempfile.mkdtemp(prefix="readme-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "tests").symlink_to(ROOT / "tests")
    (folder / "examples").symlink_to(ROOT / "examples")
    yield folder
    shutil.rmtree(folder)


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


def test_every_command_of_the_readme_is_covered_here() -> None:
    known = ("make demo", "make test", "pip install", "docker compose", "schema apply")
    for block in blocks("sh"):
        assert any(text in block for text in known), block


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:.*\n\t@?\$\(BIN\)/dsql-outbox demo$", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)


def test_the_install_command_brings_the_command_line(folder: Path) -> None:
    command = block_with("pip install").strip().replace("pip install", "uv pip install -q")
    shell(f"uv venv -q --python '{sys.executable}' '{folder}/venv'", ROOT)
    shell(f"{command} --python '{folder}/venv'", ROOT)
    assert "dsql-outbox" in shell(f"'{folder}/venv/bin/dsql-outbox' --version", folder)


def test_the_command_line_example_stores_and_relays_an_event(folder: Path) -> None:
    shell(block_with("schema apply"), folder)
    (line,) = (folder / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    assert '"topic":"events.CarCreated"' in line


def test_the_producer_example_is_the_one_in_the_readme_and_works(database_url: str) -> None:
    producer = ROOT / "examples" / "producer.py"
    code = producer.read_text(encoding="utf-8").partition("\n\n")[2]
    assert block_with("AsyncWriter", "python") == code
    assert len([line for line in code.splitlines() if line]) <= 15
    shell("dsql-outbox schema apply", ROOT, DSQL_OUTBOX_DATABASE=database_url)
    said = shell(f"python '{producer}'", ROOT, DSQL_OUTBOX_DATABASE=database_url)
    assert said.endswith("committed version 1\n")


def test_the_demo_sends_its_spans_where_it_is_told_and_trace_finds_them(folder: Path) -> None:
    up, demo, trace = block_with("docker compose").splitlines()
    assert up == "docker compose up --detach"
    with OtlpReceiver() as receiver:
        shown = shell(demo.replace("http://localhost:4318", receiver.endpoint), folder)
        names = {span.name for span in receiver.spans}
        services = spans_by_service(receiver.requests)
    assert {"outbox.write", "outbox.write.attempt", "outbox.wait"} <= names
    ((event_id, tree),) = re.findall(r"The most retried event, (\S+):.*\n((?:.*\n)+)", shown)
    example = trace.split()[-1]
    assert f"The most retried event, {example}:" in README
    with serving(Jaeger(services)) as jaeger:
        drawn = shell(trace.replace(example, event_id), folder, DSQL_OUTBOX_JAEGER=jaeger.url)
    assert tree.rstrip() in drawn


def test_files_that_the_readme_links_to_exist() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / link).exists(), link
