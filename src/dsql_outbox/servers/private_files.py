"""Files and folders in places where another user can write.

All functions refuse to follow a link, and check the owner of the opened file.
Otherwise another user could make us write to a file of their choice.
"""

import fcntl
import os
import stat
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from dsql_outbox.outbox.errors import SettingsError

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened_folder(folder: Path, owners: Collection[int]) -> Generator[int]:
    """Open a folder, made if it is missing, and yield its descriptor.

    Raises `SettingsError` for a link, for a folder that cannot be made or opened, and for
    one that belongs to a user not in `owners`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"folder {folder} cannot be made: {error.strerror}; name another"
        ) from error
    try:
        handle = os.open(folder, _FOLDER)
    except OSError as error:
        why = "is a link" if folder.is_symlink() else f"cannot be opened: {error.strerror}"
        raise SettingsError(f"folder {folder} {why}; name another") from error
    try:
        _require_owner(f"folder {folder}", os.fstat(handle), owners)
        yield handle
    finally:
        os.close(handle)


def open_log(name: str, folder: int | None, owners: Collection[int]) -> int:
    """Open a log for appending and reading, and return its descriptor; create it if missing.

    `folder` is the descriptor of its folder; None if `name` is a path. Raises
    `SettingsError` for a link, for anything but a regular file, and for a file
    that belongs to a user not in `owners`.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        raise SettingsError(f"log {name} is a link or cannot be opened: remove it") from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise SettingsError(f"log {name} is a link or no file: remove it")
        _require_owner(f"log {name}", found, owners)
    except BaseException:
        os.close(handle)
        raise
    return handle


def try_lock(handle: int) -> bool:
    """Lock an open file or folder; return False if another process has the lock."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_secret(path: Path, text: str) -> None:
    """Write a new file that only its owner may read. Raises `FileExistsError` if it exists."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def read_secret(path: Path) -> str | None:
    """Read a file that `write_secret` wrote as this user; None if there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, encoding="utf-8") as file:
        found = os.fstat(handle)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        return file.read() if ours else None


def _require_owner(what: str, found: os.stat_result, owners: Collection[int]) -> None:
    if found.st_uid not in owners:
        raise SettingsError(f"{what} belongs to another user; name another")
