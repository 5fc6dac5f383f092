"""The lock of a folder that `dev` keeps data in."""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from dsql_outbox.outbox import OutboxError, SettingsError

_NAME: Final = "dev.pid"
_STOP: Final = 20.0  # seconds that the servers of a killed process may take to stop
_DIGITS: Final = 20


@contextmanager
def locked(folder: Path) -> Generator[int]:
    """Make and lock `folder` for this process; yields the descriptor that holds the lock.

    A server that inherits it holds the lock too. So if this process is killed, the next one
    waits until its servers have stopped.

    Raises `SettingsError` if another process has the folder or it cannot be made, and
    `OutboxError` if the servers of a killed process still run after 20 s.
    """
    handle = _opened(folder)
    try:
        _lock(handle, folder)
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield handle
    finally:
        os.close(handle)


def _opened(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(
            f"folder {folder} cannot be used: {error.strerror}; name another"
        ) from error


def _lock(handle: int, folder: Path) -> None:
    deadline = monotonic() + _STOP
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _refuse_while_owned(handle, folder)
        if monotonic() > deadline:
            raise OutboxError(
                f"the servers of a killed `dsql-outbox dev` in {folder} still run after "
                f"{_STOP:.0f} s: end them, or name another folder"
            )
        sleep(0.01)


def _refuse_while_owned(handle: int, folder: Path) -> None:
    owner = os.pread(handle, _DIGITS, 0).decode()
    if owner.isdigit() and _is_alive(int(owner)):
        raise SettingsError(
            f"`dsql-outbox dev` already runs in {folder} (process {owner}): end it, or name "
            "another folder"
        )


def _is_alive(pid: int) -> bool:
    """Whether a process runs. One that was killed may stay in the table until its parent asks."""
    with suppress(OSError):  # there is no /proc, or no such process
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
