"""The sink ``jsonl:FILE``: one JSON object per line, appended and synced to disk."""

import errno
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from dsql_outbox.outbox.errors import SettingsError

from .json_lines import LineSink, unavailable_as, write_all
from .port import Sink

_SCHEME: Final = "jsonl:"
_LASTING: Final = {
    errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR,
    errno.EROFS,
}  # fmt: skip
"""Errors that do not pass by themselves, such as a missing folder; a full disk may pass."""

_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW


@asynccontextmanager
async def open_jsonl(url: str) -> AsyncGenerator[Sink]:
    """Append to the file of ``jsonl:FILE``, a relative or absolute path.

    A missing file is created, with rights for its owner only (mode 0600). Each line
    is ``{"topic", "key", "headers", "payload"}``; the headers have the binary form of
    CloudEvents, and the payload is a string with the exact text. A payload whose content type
    is not text is ``payload_base64`` instead. A message is delivered after ``fsync``.

    Raises `SettingsError` for a URL without a file, for a symbolic link, and for a file
    that cannot exist there, as without its folder. Raises `SinkUnavailable` when the file
    cannot be opened for another reason. `publish` raises
    `SinkUnavailable` when the file cannot be written.
    """
    file = _File(_path(url))
    try:
        yield LineSink("jsonl", file.append)
    finally:
        file.close()


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        with unavailable_as(str(path)):
            if path.is_symlink():
                raise SettingsError(f"{path} is a link: name the file that jsonl: shall append to")
            try:
                self._descriptor = os.open(path, _APPEND, 0o600)
            except OSError as error:
                if error.errno not in _LASTING:
                    raise
                raise SettingsError(f"jsonl: cannot open {path}: {error.strerror}") from error
            _sync_folder(path)

    def append(self, lines: bytes) -> None:
        with unavailable_as(str(self._path)):
            write_all(self._descriptor, b"\n" + lines if self._is_torn() else lines)
            os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)

    def _is_torn(self) -> bool:
        # A crash or a full disk can leave half a line at the end of the file. A line
        # feed ends it, so that it does not corrupt the next line.
        size = os.fstat(self._descriptor).st_size
        return size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"


def _path(url: str) -> Path:
    path = url.removeprefix(_SCHEME)
    if not path or path.startswith("//") or "\0" in path:
        raise SettingsError("a jsonl: URL is jsonl:FILE, as in jsonl:events.jsonl or jsonl:/a/b")
    return Path(path)


def _sync_folder(path: Path) -> None:
    """Sync the folder too, so that the name of a new file survives a crash."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
