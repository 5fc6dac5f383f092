"""The facts of a file: those of its row in ``outbox_archives``, and of its manifest."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, Self
from uuid import UUID

import msgspec

from dsql_outbox.outbox.errors import ArchiveError

from .archived_event import ArchivedEvent, compress, decode_lines, decompress, encode_lines
from .file_rules import manifest_of, require_name
from .place import ArchivePlace, read_facts

FORMAT: Final = 1

MAX_CONTENT: Final = 256 << 20
"""Most bytes of a file, and of the lines in it.

The events of a transaction have less, with all their headers. A file that unpacks to more is none
of ours.
"""


class ArchiveFile(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The facts of a file. The hashes are SHA-256 in hex: of the file, and of the lines in it."""

    number: int
    file: str
    events: int
    first_id: UUID
    last_id: UUID
    oldest_at: datetime
    newest_at: datetime
    file_size: int
    sha256: str
    content_sha256: str

    @classmethod
    def of(cls, number: int, file: str, events: Sequence[ArchivedEvent]) -> tuple[Self, bytes]:
        """The facts of a file with these events, in order of their ids, and its bytes."""
        content = encode_lines(events)
        data = compress(content)
        facts = cls(
            number=number,
            file=file,
            events=len(events),
            first_id=events[0].id,
            last_id=events[-1].id,
            oldest_at=min(event.saved_date for event in events),
            newest_at=max(event.saved_date for event in events),
            file_size=len(data),
            sha256=sha256(data).hexdigest(),
            content_sha256=sha256(content).hexdigest(),
        )
        return facts, data

    @classmethod
    def from_columns(cls, columns: Iterable[Any]) -> Self:
        """The facts in the columns of a row, in the order of the fields."""
        return cls(**dict(zip(cls.__struct_fields__, columns, strict=True)))

    @property
    def manifest(self) -> str:
        """The name of its manifest."""
        return manifest_of(self.file)

    def write(self, place: ArchivePlace, store: UUID, data: bytes) -> None:
        """Write the file and its manifest, read both back and compare them.

        Raises `ArchiveError`.
        """
        manifest = msgspec.json.format(msgspec.json.encode(_Manifest(FORMAT, store, self)))
        place.write(self.file, data)
        place.write(self.manifest, manifest)
        self.read(place)
        if place.read(self.manifest, len(manifest)) != manifest:
            raise ArchiveError(self.manifest, place.name, "it reads back differently")

    def read(self, place: ArchivePlace) -> list[ArchivedEvent]:
        """The events of the file. Raises `ArchiveError` unless it is as these facts say."""
        data = place.read(self.file, min(self.file_size, MAX_CONTENT))
        if sha256(data).hexdigest() != self.sha256:
            told = f"it is not the file that was written: {len(data):,} of {self.file_size:,} bytes"
            if len(data) == self.file_size:
                told = "it is not the file that was written: its SHA-256 differs"
            raise ArchiveError(self.file, place.name, told)
        try:
            content = decompress(data, MAX_CONTENT)
            if sha256(content).hexdigest() != self.content_sha256:
                raise ArchiveError(self.file, place.name, "its content differs from its facts")
            events = list(decode_lines(content))
        except ValueError as error:
            raise ArchiveError(self.file, place.name, f"it cannot be read: {error}") from None
        if len(events) != self.events:
            raise ArchiveError(self.file, place.name, "its content differs from its facts")
        return events

    def remove(self, place: ArchivePlace) -> None:
        """Remove the file and its manifest. Raises `ArchiveError`."""
        remove_file(place, self.file)


class _Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """The manifest of a file; `store` names the outbox."""

    format: int
    store: UUID
    archive: ArchiveFile


def remove_file(place: ArchivePlace, file: str) -> None:
    """Remove a file and its manifest, if they exist. Raises `ArchiveError`."""
    manifest = manifest_of(file)
    require_name(manifest, place.name)  # first, as `file` may be the manifest of another file
    place.remove(file)
    place.remove(manifest)


def read_manifest(place: ArchivePlace, file: str) -> tuple[UUID, ArchiveFile]:
    """The outbox and the facts in the manifest of a file. Raises `ArchiveError`."""
    found = read_facts(place, manifest_of(file), _Manifest, "it is no manifest")
    return found.store, found.archive
