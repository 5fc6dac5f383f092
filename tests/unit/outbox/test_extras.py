"""The command that installs a missing extra, by what the installer recorded (PEP 610)."""

import json
from importlib.metadata import distribution
from pathlib import Path

import pytest
from tests.support.checkout import ROOT

from dsql_outbox.outbox import MissingExtra

WHEEL = "dsql_outbox-0.1.0-py3-none-any.whl"
GIT = {"vcs": "git", "commit_id": "4f2c0de"}


def told(extra: str = "cli") -> str:
    return str(MissingExtra(extra, "it")).partition(": ")[2]


@pytest.fixture
def metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the metadata of an installation, before the real one on the path."""
    folder = tmp_path / "dsql_outbox-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: dsql-outbox\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


@pytest.mark.usefixtures("metadata")
def test_an_installation_from_an_index_asks_the_index() -> None:
    assert told() == "pip install 'dsql-outbox[cli]'"


@pytest.mark.parametrize(
    ("recorded", "command"),
    [
        (
            {"url": "file:///home/me/a%20clone", "dir_info": {"editable": True}},
            "pip install --editable '/home/me/a clone[cli]'",
        ),
        (
            {"url": "file:///home/me/a%20clone", "dir_info": {}},
            "pip install 'dsql-outbox[cli] @ file:///home/me/a%20clone'",
        ),
        (
            {"url": f"file:///tmp/{WHEEL}", "archive_info": {"hash": "sha256=00"}},
            f"pip install 'dsql-outbox[cli] @ file:///tmp/{WHEEL}'",
        ),
        (
            {"url": "https://example.com/a.git", "vcs_info": GIT},
            "pip install 'dsql-outbox[cli] @ git+https://example.com/a.git@4f2c0de'",
        ),
        (
            {"url": "ssh://git@example.com/a.git", "vcs_info": GIT},
            "pip install 'dsql-outbox[cli] @ git+ssh://git@example.com/a.git@4f2c0de'",
        ),
    ],
)
def test_an_installation_from_elsewhere_asks_there_again(
    metadata: Path, recorded: dict[str, object], command: str
) -> None:
    (metadata / "direct_url.json").write_text(json.dumps(recorded))
    assert told() == command


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:s3cret@example.com/{WHEEL}",
        f"https://s3cret@example.com/{WHEEL}",
        f"https://example.com/{WHEEL}?signature=s3cret",
        f"https://example.com/{WHEEL}#s3cret",
    ],
)
def test_a_secret_in_a_url_is_not_told(metadata: Path, url: str) -> None:
    (metadata / "direct_url.json").write_text(json.dumps({"url": url, "archive_info": {}}))
    assert told() == f"pip install 'dsql-outbox[cli] @ https://example.com/{WHEEL}'"


def test_this_clone_is_installed_as_it_stands() -> None:
    recorded = json.loads(distribution("dsql-outbox").read_text("direct_url.json") or "{}")
    assert recorded["dir_info"] == {"editable": True}
    assert told("nats") == f"pip install --editable '{ROOT}[nats]'"
