"""The files of the checkout: those in git, and those that could be added."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = ROOT / "src" / "dsql_outbox"
ROOMS: Final = sorted(path.name for path in PACKAGE.iterdir() if path.is_symlink())
"""The rooms are the links of the package."""


def files_of(root: Path = ROOT, *patterns: str) -> list[Path]:
    """Every file that git has or would take and that fits one of the patterns, if there are any.

    Symlinked folders are not followed.
    """
    return [
        path
        for path in _paths(root)
        if path.is_file() and (not patterns or any(path.match(p) for p in patterns))
    ]


def copy_checkout(root: Path, clone: Path) -> None:
    """Make a new repository with these files, as a clone after a commit would have them."""
    for path in _paths(root):
        target = clone / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_file():
            shutil.copy2(path, target, follow_symlinks=False)
    subprocess.run(["git", "init", "--quiet"], cwd=clone, check=True)


def _paths(root: Path) -> list[Path]:
    """What git lists, without virtual environments: those have names of their makers' own."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    names = [name for name in listed.split("\0") if name]
    paths = [root / name for name in names]
    environments = {marker.parent for marker in paths if marker.name == "pyvenv.cfg"}
    return [path for path in paths if environments.isdisjoint(path.parents)]
