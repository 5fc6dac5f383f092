"""Where archive files are: a folder, or a prefix of an S3 bucket."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import msgspec

from dsql_outbox.outbox.errors import ArchiveError, SettingsError

MARKER: Final = "outbox-archive.json"
"""The file that says whose archive a place is."""

_MAX_NAME: Final = 1024
"""The most characters of the name of a place: those of its column."""


class ArchivePlace(Protocol):
    """Files in one place; its methods block. They raise `ArchiveError`, which names the file."""

    @property
    def name(self) -> str:
        """The place as `open_place` takes it."""
        ...

    def read(self, file: str, /) -> bytes:
        """The bytes of a file."""
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


def open_place(name: str) -> ArchivePlace:
    """The place with a name: a folder, or ``s3://BUCKET/PREFIX``.

    Raises `SettingsError` for another name, and `MissingExtra`.
    """
    if len(name) > _MAX_NAME:
        raise SettingsError(f"an archive has a name of {_MAX_NAME} characters at most")
    if name.startswith("s3://"):
        from .s3_place import open_s3  # noqa: PLC0415 - boto3 is slow, and an extra

        return open_s3(name)
    if not name or "://" in name or "\0" in name or name.startswith("s3:"):
        raise SettingsError(f"an archive is FOLDER or s3://BUCKET/PREFIX, got {name!r}")
    return FolderPlace(Path(name).resolve())


class _Marker(msgspec.Struct, frozen=True):
    format: int
    store: UUID


def claim(place: ArchivePlace, store: UUID, *, is_known: bool) -> None:
    """Make a place that of an outbox. Raises `SettingsError` for another one's.

    `is_known`: it must be that of the outbox already, as files of it were written there.
    """
    if place.exists(MARKER):
        try:
            found = msgspec.json.decode(place.read(MARKER), type=_Marker)
        except msgspec.MsgspecError:
            raise ArchiveError(MARKER, place.name, "it does not say whose archive it is") from None
        if found.store != store:
            raise SettingsError(
                f"{place.name} is the archive of another outbox, {found.store}; this one is "
                f"{store}: choose another place"
            )
        return
    if is_known:
        raise ArchiveError(
            MARKER, place.name, "it is missing, though files were archived there: is it mounted?"
        )
    place.write(MARKER, msgspec.json.encode(_Marker(1, store)))


class FolderPlace:
    """A folder. It is made at the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def name(self) -> str:
        """The absolute path."""
        return str(self._folder)

    def read(self, file: str, /) -> bytes:
        """The bytes of a file."""
        with self._named(file):
            return (self._folder / file).read_bytes()

    def write(self, file: str, data: bytes, /) -> None:
        """Write a file under another name, and rename it when it is on the disk."""
        path = self._folder / file
        written = path.with_name(f"{file}.part")
        with self._named(file):
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with written.open("wb") as stream:
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
        with self._named(file):
            for name in (file, f"{file}.part"):
                (self._folder / name).unlink(missing_ok=True)
            if self._folder.exists():
                _sync(self._folder)

    def exists(self, file: str, /) -> bool:
        """Whether a file exists."""
        return (self._folder / file).exists()

    @contextmanager
    def _named(self, file: str) -> Generator[None]:
        try:
            yield
        except FileExistsError as error:
            raise ArchiveError("", self.name, "it is no folder") from error
        except OSError as error:
            raise ArchiveError(file, self.name, error.strerror or type(error).__name__) from error


def _sync(folder: Path) -> None:
    """Let a rename or a removal in a folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
