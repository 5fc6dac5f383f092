"""One archived event, and the lines of a file."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from io import BytesIO
from typing import Final
from uuid import UUID

import msgspec

from .compression import zstd


class ArchivedEvent(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What an event loses when it is archived, and what names it.

    `event` is its JSON text as received, `headers` the JSON of its own headers, and `touches` the
    JSON of its touches. `header_data` are the texts of its rows in ``event_headers``, one per
    touch and in their order; None for one that is not stored. `fingerprint` is hex.
    """

    id: UUID
    saved_date: datetime
    fingerprint: str
    event: str
    headers: str | None
    touches: str
    header_data: tuple[str | None, ...]


_encoder: Final = msgspec.json.Encoder()
_decode: Final = msgspec.json.Decoder(ArchivedEvent).decode


def encode_lines(events: Iterable[ArchivedEvent]) -> bytes:
    """The content of a file: one line of JSON per event."""
    return _encoder.encode_lines(list(events))


def compress(content: bytes) -> bytes:
    """The bytes of a file. Raises `MissingExtra`."""
    data: bytes = zstd().compress(content, 3)
    return data


def decompress(file: bytes, most: int) -> bytes:
    """The content of a file.

    Raises `ValueError` for bytes that are no whole file, or whose content has more than `most`.
    """
    library = zstd()
    unpacker = library.ZstdDecompressor()
    try:
        content: bytes = unpacker.decompress(file, most + 1)
    except library.ZstdError as error:
        raise ValueError(str(error)) from None
    if len(content) > most:
        raise ValueError(f"its content has more than {most:,} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("it does not end where its content does")
    return content


def decode_lines(content: bytes) -> Iterator[ArchivedEvent]:
    """The events of a content. Raises `ValueError` for a line that is no event."""
    for number, line in enumerate(BytesIO(content), 1):
        try:
            yield _decode(line)
        except (msgspec.MsgspecError, ValueError):  # its text may quote the event
            raise ValueError(f"line {number} is no archived event") from None
