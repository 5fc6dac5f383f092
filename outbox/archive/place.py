"""Where archive files are: a folder, or a prefix of an S3 bucket."""

import os
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from errno import ELOOP
from pathlib import Path
from stat import S_ISREG
from typing import Final, Protocol, TypeVar
from uuid import UUID

import msgspec

from dsql_outbox.outbox.errors import ArchiveError, SettingsError

from .file_rules import MARKER, require_name, require_size

_MAX_NAME: Final = 1024
"""The most characters of the name of a place: those of its column."""

_MAX_FACTS: Final = 64 << 10
"""The most bytes of a marker or a manifest."""

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Facts = TypeVar("Facts")


class ArchivePlace(Protocol):
    """Files in one place; its methods block. They raise `ArchiveError`, which names the file.

    They take the names that `require_name` accepts, and no others.
    """

    @property
    def name(self) -> str:
        """The place as `open_place` takes it."""
        ...

    def read(self, file: str, most: int, /) -> bytes:
        """The bytes of a file, which has at most `most` of them."""
        ...

    def write(self, file: str, data: bytes, /) -> None:
        """Write a file as a whole: after a crash, it is there with all bytes or not at all."""
        ...

    def remove(self, file: str, /) -> None:
        """Remove a file, if it exists."""
        ...

    def exists(self, file: str, /) -> bool:
        """Whether a file exists."""
        ...


def open_place(name: str, *, is_recorded: bool = False) -> ArchivePlace:
    """The place with a name: a folder, or ``s3://BUCKET/PREFIX``.

    A name that `is_recorded` in a row must not choose a server. Raises `SettingsError` for another
    name, and `MissingExtra`.
    """
    if len(name) > _MAX_NAME:
        raise SettingsError(f"an archive has a name of {_MAX_NAME} characters at most")
    if name.startswith("s3://"):
        from .s3_place import open_s3  # noqa: PLC0415 - boto3 is slow, and an extra

        return open_s3(name, is_recorded=is_recorded)
    if not name or _SCHEME.match(name):
        raise SettingsError(
            f"an archive is FOLDER or s3://BUCKET/PREFIX, got {name!r}; "
            "write ./ before a folder whose name has a colon"
        )
    try:
        folder = Path(name).resolve()
        str(folder).encode()
    except (OSError, RuntimeError, ValueError):  # a loop of links, the character NUL, no UTF-8
        raise SettingsError(f"no folder can be named {name!a}") from None
    return FolderPlace(folder)


class _Marker(msgspec.Struct, frozen=True):
    format: int
    store: UUID


def claim(place: ArchivePlace, store: UUID, *, is_known: bool) -> None:
    """Make a place that of an outbox. Raises `SettingsError` for another one's.

    `is_known`: it must be that of the outbox already, as files of it were written there.
    """
    found = _marked_store(place)
    if found is None:
        if is_known:
            told = "it is missing, though files were archived there: is it mounted?"
            raise ArchiveError(MARKER, place.name, told)
        place.write(MARKER, msgspec.json.encode(_Marker(1, store)))
    elif found != store:
        raise SettingsError(
            f"{place.name} is the archive of another outbox, {found}; this one is "
            f"{store}: choose another place"
        )


def open_recorded(
    name: str, file: str, given: Sequence[ArchivePlace], store: UUID
) -> ArchivePlace | None:
    """The place that a row names for a file. It is None if a place that is not ours lacks the file.

    A place is ours if it was `given`, or if its marker names the outbox. A role that may change
    rows must reach no other file by them. It blocks. Raises `ArchiveError` if the file is in a
    place that is not ours, if only a command may name the place, and for a folder that is not
    there: on another machine, or mounted again, it may have the file.
    """
    for place in given:
        if place.name == name:
            return place
    remedy = "if it is an archive of this outbox, name it in the command"
    try:
        found = open_place(name, is_recorded=True)
    except SettingsError as error:
        raise ArchiveError(file, name, f"{error}; {remedy}") from None
    if _marked_store(found) == store:
        return found
    if found.exists(file):
        told = f"a row names this place, which does not have the marker of the outbox; {remedy}"
        raise ArchiveError(file, name, told)
    if isinstance(found, FolderPlace) and not Path(found.name).exists():
        told = (
            "no such folder: is it mounted, or on another machine? "
            "If it is gone for good, make an empty folder there"
        )
        raise ArchiveError(file, name, told)
    return None


def _marked_store(place: ArchivePlace) -> UUID | None:
    """The outbox whose archive the place is, by its marker."""
    if not place.exists(MARKER):
        return None
    return read_facts(place, MARKER, _Marker, "it does not say whose archive it is").store


def read_facts(place: ArchivePlace, file: str, kind: type[Facts], otherwise: str) -> Facts:
    """The facts in a marker or a manifest. Raises `ArchiveError`, which says `otherwise`."""
    data = place.read(file, _MAX_FACTS)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ArchiveError(file, place.name, otherwise) from None


class FolderPlace:
    """A folder. It is made at the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """The absolute path."""
        return str(self._folder)

    def read(self, file: str, most: int, /) -> bytes:
        """The bytes of a regular file; no link is followed, and no pipe is waited for."""
        with self._archive_errors(file):
            descriptor = os.open(self._folder / file, _READ)
            with os.fdopen(descriptor, "rb") as stream:
                found = os.fstat(descriptor)
                if not S_ISREG(found.st_mode):
                    raise ArchiveError(file, self.name, "it is no regular file")
                require_size(file, self.name, found.st_size, most)
                return stream.read(found.st_size)

    def write(self, file: str, data: bytes, /) -> None:
        """Write a file under another name, and rename it when it is on the disk.

        The file has the mode 0600, as it holds events, and a folder that is made for it 0700.
        """
        with self._archive_errors(file):
            path = self._folder / file
            written = path.with_name(f"{file}.part")
            self._make_folder()
            try:
                with os.fdopen(_open_new(written), "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                written.rename(path)
                _sync(self._folder)
            except OSError:
                with suppress(OSError):
                    written.unlink()
                raise

    def remove(self, file: str, /) -> None:
        """Remove a file, and what a killed write left of it."""
        with self._archive_errors(file):
            for name in (file, f"{file}.part"):
                (self._folder / name).unlink(missing_ok=True)
            if self._folder.exists():
                _sync(self._folder)

    def exists(self, file: str, /) -> bool:
        """Whether a file exists; a link is one, wherever it leads."""
        with self._archive_errors(file):
            try:
                (self._folder / file).lstat()
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as error:
            raise ArchiveError("", self.name, "it is no folder") from error

    @contextmanager
    def _archive_errors(self, file: str) -> Generator[None]:
        """Refuse the name of another file, and raise the system's errors as `ArchiveError`."""
        require_name(file, self.name)
        try:
            yield
        except OSError as error:
            told = error.strerror or type(error).__name__
            told = "it is a symbolic link" if error.errno == ELOOP else told
            raise ArchiveError(file, self.name, told) from error


def _open_new(path: Path) -> int:
    """Make a file, in the place of what a killed write left, or of a link that somebody has put."""
    with suppress(FileExistsError):
        return os.open(path, _MAKE, 0o600)
    path.unlink()
    return os.open(path, _MAKE, 0o600)


def _sync(folder: Path) -> None:
    """Let a rename or a removal in a folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
