"""What `make dist` built, as the registry takes and shows it and as users install it.

`make package-check` builds and runs this. It needs the registry, and finds most in uv's cache.
"""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from readme_renderer.markdown import render
from tests.support.checkout import ROOT
from uv import find_uv_bin

pytestmark = [pytest.mark.package, pytest.mark.timeout(400)]

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHON = "Programming Language :: Python :: "
PYTHONS = [name.removeprefix(PYTHON) for name in PROJECT["classifiers"] if PYTHON in name]
PAGE = ROOT / "build" / "package-page.html"
OF_THIS_VERSION = re.compile(
    rf"{re.escape(PROJECT['urls']['Source'])}/(?:blob|raw)/v{re.escape(PROJECT['version'])}/([^#]+)"
)
SHIPPED = ("docs/*.md", "examples/**/*", "tests/data/events/*")
"""The files that README.md leads to, which an sdist must hold."""


def built(pattern: str) -> Path:
    (found,) = (ROOT / "dist").glob(pattern)
    return found


def uv(*words: object, cwd: Path = ROOT, fails: bool = False) -> str:
    """What uv prints, to both streams."""
    command = [find_uv_bin(), *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert (done.returncode != 0) == fails, done.stdout
    return done.stdout


class Links(HTMLParser):
    """Collects where the links and images of a page lead, but for each heading's link to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - any tag
        found = [value or "" for name, value in attrs if name in {"href", "src"}]
        self.found += [link for link in found if not link.startswith("#user-content-")]


@pytest.fixture(scope="module")
def page() -> str:
    """The page of the package, as the registry renders it; also a file to look at."""
    metadata = zipfile.ZipFile(built("*.whl")).read(
        f"{built('*.whl').name.partition('-py3')[0]}.dist-info/METADATA"
    )
    parsed = Parser().parsestr(metadata.decode())
    assert parsed["Description-Content-Type"] == "text/markdown"
    html = render(str(parsed.get_payload()))
    assert html is not None
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(f"<!doctype html><meta charset=utf-8>{html}", encoding="utf-8")
    return html


def test_the_registry_takes_the_metadata() -> None:
    twine = [sys.executable, "-m", "twine", "check", "--strict", built("*.whl"), built("*.tar.gz")]
    done = subprocess.run(twine, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("PASSED")) == (0, 2), done.stdout


def test_every_link_of_the_package_page_is_absolute_and_leads_to_a_file(page: str) -> None:
    links = Links()
    links.feed(page)
    assert len(links.found) > 10
    relative = [link for link in links.found if not re.match("https?://", link)]
    assert relative == []
    ours = [name for link in links.found for name in OF_THIS_VERSION.findall(link)]
    assert len(ours) > 10
    assert [name for name in ours if not (ROOT / name).exists()] == []


def test_every_url_of_the_project_is_below_its_repository() -> None:
    source = PROJECT["urls"]["Source"]
    assert [url for url in PROJECT["urls"].values() if not url.startswith(source)] == []


def test_the_sdist_has_what_the_readme_leads_to() -> None:
    with tarfile.open(built("*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", "--", *SHIPPED], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(listed) > 30
    assert set(listed) - names == set()
    assert [name for name in names if "__pycache__" in name] == []


def test_a_second_build_gives_the_same_files(tmp_path: Path) -> None:
    subprocess.run(
        ["make", "dist", f"DIST={tmp_path / 'dist'}"], cwd=ROOT, check=True, capture_output=True
    )
    for pattern in ("*.whl", "*.tar.gz"):
        (again,) = (tmp_path / "dist").glob(pattern)
        assert sha256(again.read_bytes()).digest() == sha256(built(pattern).read_bytes()).digest()


@pytest.mark.parametrize("python", PYTHONS)
def test_every_extra_has_wheels_for_each_python(python: str) -> None:
    """An installation compiles nothing. Of nkeys there is only a source, in pure Python."""
    wheels = ["--only-binary", ":all:", "--no-binary", "nkeys"]
    options = ["--all-extras", *wheels, "--python-version", python]
    assert "psycopg-binary==" in uv("pip", "compile", "--quiet", *options, "pyproject.toml")


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("source", ["*.whl", "*.tar.gz"])
def test_the_demo_runs_in_an_empty_environment(source: str, python: str, tmp_path: Path) -> None:
    offline = ["--no-python-downloads", "--python", python]
    find = [find_uv_bin(), "python", "find", "--system", "--no-python-downloads", python]
    if subprocess.run(find, capture_output=True, check=False).returncode:
        pytest.skip(f"Python {python} is not on this machine")
    wanted = f"dsql-outbox[demo] @ {built(source).as_uri()}"
    words = ["tool", "run", "--isolated", *offline, "--from", wanted]
    text = uv(*words, "dsql-outbox", "demo", cwd=tmp_path)
    assert "the outbox is empty again: 0 rows" in text


def test_the_program_of_the_readme_runs_in_an_empty_environment() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    program = readme.split("```python\n")[1].partition("```")[0]
    wanted = ["--with", f"dsql-outbox[demo,sqlalchemy] @ {built('*.whl').as_uri()}"]
    with TemporaryDirectory(dir="/tmp") as folder:  # which the server's user may enter
        Path(folder).chmod(0o755)
        words = ["run", "--isolated", "--no-project", "--no-python-downloads", *wanted]
        words += ["--with", "asyncpg"]
        tables = ["dsql-outbox", "schema", "apply", "--database", "embedded:./outbox-data"]
        uv(*words, *tables, cwd=Path(folder))
        text = uv(*words, "python", "-c", program, cwd=Path(folder))
    assert "committed version 1" in text


def test_a_bare_installation_imports_and_names_the_extra_of_the_command(tmp_path: Path) -> None:
    words = ["tool", "run", "--isolated", "--no-python-downloads", "--from", built("*.whl")]
    text = uv(*words, "dsql-outbox", "demo", cwd=tmp_path, fails=True)
    assert "needs the extra [cli]: pip install" in text
