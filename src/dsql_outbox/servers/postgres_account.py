"""The user that runs PostgreSQL, and how that user gets access to its files.

PostgreSQL refuses to run as root. Started by root, it runs as user nobody.
"""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any, Final

from dsql_outbox.outbox.errors import SettingsError

from .private_files import opened_folder

_USER: Final = "nobody"  # initdb needs a user that passwd lists, and passwd always lists this one


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
    """Make a folder that only PostgreSQL's user may enter, in a parent of this user alone."""
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
        if os.geteuid() != 0 and not server_may("-w", folder):
            raise SettingsError(f"folder {folder} cannot be written to; name another")
        if not server_may("-w", folder):
            raise SettingsError(
                f"user {_USER} cannot reach folder {folder}: PostgreSQL refuses to run as root, "
                f"so it runs as {_USER}; name one whose parents all users may enter, or do not "
                "run as root"
            )
        os.chmod(handle, 0o700)  # noqa: PTH101 - as above; PostgreSQL refuses one that others may enter


def _give(folder: Path | int) -> None:
    options = server_options()
    if "user" in options:
        os.chown(folder, options["user"], options["group"])


def server_may(access: str, path: Path) -> bool:
    """Whether PostgreSQL's user has this access, an option of `test` such as ``-x``."""
    command: Final = ["test", access, str(path)]
    return subprocess.call(command, **server_options()) == 0  # noqa: S603 - our command
