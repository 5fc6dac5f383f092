"""CI, the hooks of a commit and the Makefile: what runs is said in one place each."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from tests.support.checkout import ROOT
from tests.support.release import needs

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
(JOB,) = WORKFLOW["jobs"].values()
RELEASE = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHON = "Programming Language :: Python :: "


def pythons_of_the_project() -> list[str]:
    return [name.removeprefix(PYTHON) for name in PROJECT["classifiers"] if PYTHON in name]


def test_ci_runs_on_each_python_that_the_project_names() -> None:
    assert JOB["strategy"]["matrix"] == {"python": pythons_of_the_project()}
    (setup,) = [step for step in JOB["steps"] if "setup-python" in step.get("uses", "")]
    assert setup["with"] == {"python-version": "${{ matrix.python }}"}


def test_the_oldest_python_is_the_one_that_the_project_requires() -> None:
    assert PROJECT["requires-python"] == f">={pythons_of_the_project()[0]}"


def test_ci_runs_the_script_that_everybody_can_run_and_nothing_else() -> None:
    assert [step["run"] for step in JOB["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR


def test_ci_runs_the_tests_once_and_measures_their_branches() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    made = [words.split() for words in re.findall(r"^run make (.+)$", script, re.MULTILINE)]
    assert [words for words in made if words[0] in {"test", "coverage"}] == [["test"]]
    assert JOB["env"]["COVERAGE"] == "1"
    assert "coverage report" in commands_of("test", "COVERAGE=1")
    assert "coverage report" not in commands_of("test")


def test_ci_checks_with_both_type_checkers_and_formats_nothing() -> None:
    assert "run make check-all\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    ran = [words.split() for words in commands_of("check-all").splitlines()]
    assert [".venv/bin/basedpyright"] in ran
    assert [".venv/bin/mypy"] in ran
    assert [words[1:] for words in ran if words[0].endswith("/ruff")] == [
        ["format", "--check", "."],
        ["check", "."],
    ]


def commands_of(*targets: str) -> str:
    """What `make` would run, when no other `make` runs it with options of its own."""
    ours = (name for name in os.environ if name != "COVERAGE" and not name.startswith("MAKE"))
    env = {name: os.environ[name] for name in ours}
    command = ["make", "--dry-run", *targets]
    return subprocess.run(
        command, cwd=ROOT, env=env, check=True, capture_output=True, text=True
    ).stdout


def test_ci_may_read_the_repository_and_change_nothing() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in JOB


def test_ci_and_the_release_name_the_commit_of_each_action() -> None:
    jobs = [JOB, *RELEASE["jobs"].values()]
    actions = [step["uses"] for job in jobs for step in job["steps"] if "uses" in step]
    assert len(actions) > 5
    assert [name for name in actions if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name)] == []


def test_a_release_is_built_without_rights_and_published_without_running_our_code() -> None:
    assert RELEASE["permissions"] == {"contents": "read"}
    build, publish = RELEASE["jobs"]["build"], RELEASE["jobs"]["publish"]
    assert "permissions" not in build
    assert [step["run"] for step in build["steps"] if "run" in step] == [".ci/release"]
    assert publish["permissions"] == {"id-token": "write"}
    assert RELEASE["jobs"]["site"]["permissions"] == {"id-token": "write", "pages": "write"}
    for job in (publish, RELEASE["jobs"]["site"]):
        assert [step for step in job["steps"] if "run" in step] == []
    assert "secrets." not in str(RELEASE)


COMPLETE = {
    "pyproject.toml": """
        [project]
        version = "0.2.0"
        authors = [{ name = "Ada Lovelace" }]
        urls.Source = "https://github.com/ada/outbox"
    """,
    "CHANGELOG.md": "## [Unreleased]\n\n## [0.2.0] - 2026-12-02\n\n## [0.1.0] - 2026-11-02\n",
    "Dockerfile": f"FROM python:3.13-slim@sha256:{'0a' * 32} AS base\n",
    ".github/workflows/publish.yml": "- uses: actions/deploy-pages@0a\n  attestations: true\n",
}


@pytest.mark.parametrize(
    ("harm", "missing"),
    [
        ("echo 1 > new", "a clean tree"),
        ("git tag -d v0.2.0", "its tag"),
        ("git commit -q --allow-empty -m more", "version 0.2.0, its tag"),
        ("git remote set-url origin git@github.com:bob/outbox.git", "its address"),
        ("sed -i s/2026-12-02/today/ CHANGELOG.md", "its changes"),
        ("sed -i /authors/d pyproject.toml", "an author"),
        ("sed -i s/@sha256.*// Dockerfile", "an image by its digest"),
        ("sed -i s/true/false/ .github/workflows/publish.yml", "signatures"),
        ("sed -i /deploy/d .github/workflows/publish.yml", "a published site"),
        ("git remote set-url origin git@github.com:ada/outbox.git", ""),
        ("git remote set-url origin https://github.com/ada/outbox", ""),
    ],
)
def test_what_a_release_lacks_is_named(harm: str, missing: str, tmp_path: Path) -> None:
    for name, text in COMPLETE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(text), encoding="utf-8")

    def shell(script: str) -> None:
        options = {"GIT_CONFIG_GLOBAL": str(tmp_path / ".git" / "identity")}
        subprocess.run(
            ["bash", "-ec", script], cwd=tmp_path, check=True, env={**alone(tmp_path), **options}
        )

    shell("git init -q; git config --file .git/identity core.hooksPath /dev/null")
    shell("git config --global user.name a; git config --global user.email a@example.org")
    shell("git remote add origin https://github.com/ada/outbox.git")
    shell("git add .; git commit -qm 'a version'; git tag v0.2.0")
    assert [need.what for need in needs(tmp_path) if not need.is_there] == []
    shell(harm)
    if harm.startswith("sed"):
        shell("git commit -qam harmed; git tag -f v0.2.0")
    assert ", ".join(need.what for need in needs(tmp_path) if not need.is_there) == missing


@pytest.mark.parametrize("checked", ["", "exit 3"])
def test_a_commit_passes_if_and_only_if_make_check_passes(checked: str, tmp_path: Path) -> None:
    """The project's hooks in a repository whose `make check` does as it is told."""
    config = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert config.count("- id:") == 1
    (tmp_path / ".pre-commit-config.yaml").write_text(config, encoding="utf-8")
    (tmp_path / "Makefile").write_text(f"check:\n\t@echo was asked\n\t@{checked or ':'}\n")
    git = ["git", "-c", "core.hooksPath=/dev/null"]
    for command in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True, env=alone(tmp_path))
    done = subprocess.run(
        [Path(sys.executable).with_name("pre-commit"), "run", "--verbose", "--color=never"],
        cwd=tmp_path,
        env=alone(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "was asked" in done.stdout
    assert done.returncode == (1 if checked else 0)


def alone(folder: Path) -> dict[str, str]:
    """The environment without the git that may be running the tests, as in a hook."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**env, "PRE_COMMIT_HOME": str(folder / "cache")}
