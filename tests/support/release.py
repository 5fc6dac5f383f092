"""What a release of the last commit needs: prints what is there and what is missing.

`make release-check` runs it, and then builds and checks the packages and the site.
"""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.checkout import ROOT


class Need(NamedTuple):
    """One thing that a release needs, and what to do if it is missing."""

    what: str
    is_there: bool
    remedy: str


def needs(root: Path = ROOT) -> Iterator[Need]:
    """What a release needs, of a checkout that git knows."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version, source = project["version"], project["urls"]["Source"]
    yield Need("a clean tree", not _git(root, "status", "--porcelain"), "commit what you changed")
    tagged = _git(root, "tag", "--list", f"v{version}")
    here = f"v{version}" in _git(root, "tag", "--points-at", "HEAD").splitlines()
    next_version = "this version is the tag of another commit: set the next one in pyproject.toml"
    yield Need(f"version {version}", here or not tagged, next_version)
    yield Need("its tag", here, f'git tag --annotate v{version} --message "dsql-outbox {version}"')
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    dated = re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)
    yield Need("its changes", bool(dated), f'CHANGELOG.md: write "## [{version}] - DATE"')
    named = any("name" in each for each in project.get("authors", []))
    yield Need("an author", named, 'the owner: pyproject.toml: authors = [{ name = ".." }]')
    address = _git(root, "config", "--get", "remote.origin.url").removesuffix(".git")
    address = re.sub(r"^(ssh://)?git@([^:/]+)[:/]", r"https://\2/", address)
    address_remedy = (
        f"the owner: origin is {address or 'not set'}, and pyproject.toml says {source}"
    )
    yield Need("its address", address == source, address_remedy)
    image = (root / "Dockerfile").read_text(encoding="utf-8")
    digests = re.findall(r"^FROM \S+@sha256:[0-9a-f]{64}", image, re.MULTILINE)
    yield Need("an image by its digest", bool(digests), "Dockerfile: FROM IMAGE@sha256:..")
    publish = (root / ".github/workflows/publish.yml").read_text(encoding="utf-8")
    for what, line in {
        "signatures": "attestations: true",
        "a published site": "deploy-pages@",
    }.items():
        yield Need(what, line in publish, f".github/workflows/publish.yml: {line}")


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def main() -> int:
    """Print each need. Return 1 if one is missing."""
    found = [*needs()]
    for need in found:
        mark, remedy = ("there", "") if need.is_there else ("MISSING", f": {need.remedy}")
        sys.stdout.write(f"{mark:7}  {need.what}{remedy}\n")
    return int(not all(need.is_there for need in found))


if __name__ == "__main__":
    sys.exit(main())
