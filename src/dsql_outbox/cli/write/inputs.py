"""Events from files and from standard input, one at a time and byte for byte.

An input is JSON Lines, one event per line, or a single JSON document: an event of
several lines, or an array of events. The first line decides: a document begins with
``[``, or its first line is cut off.
"""

import os
import stat
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox import ParsedEvent, parse_event

from .descriptors import read_chunks

MAX_DOCUMENT_BYTES: Final = 16 << 20
"""A document is read whole before its first event is stored; a line may be as long."""

_STDIN: Final = "-"
_BLANKS: Final = b" \t\r\n"
_FIRST_BYTES: Final = b'{["-0123456789tfn'
"""A line that begins with another byte is no JSON, and neither is the rest of its input."""

_value: Final = msgspec.json.Decoder(msgspec.Raw)
_array: Final = msgspec.json.Decoder(list[msgspec.Raw])


class MalformedInput(Exception):
    """The input is broken at byte `offset`, so that the events after it cannot be read."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"byte {offset}: {problem}")
        self.offset = offset


class Extent(NamedTuple):
    """A part of an input: its first byte from 0, and its bytes."""

    offset: int
    data: bytes


class InputLocation(NamedTuple):
    """The place of an event: its input, its number there from 1, and its first byte from 0."""

    input: str
    record: int
    byte: int


class Record(NamedTuple):
    """One event of an input, valid or not."""

    place: InputLocation
    data: bytes

    def parse(self) -> ParsedEvent:
        """Read it. Raises `InvalidEvent`."""
        return parse_event(self.data)

    def id(self) -> UUID | None:
        """The id of an event that may be invalid otherwise."""
        with suppress(msgspec.DecodeError, RecursionError):
            return _glance.decode(self.data).event_header.uuid
        return None


class _Header(msgspec.Struct):
    uuid: UUID | None = None


class _Glance(msgspec.Struct, rename="camel"):
    event_header: _Header


_glance: Final = msgspec.json.Decoder(_Glance)


class Unreadable(Exception):
    """An input cannot be read on from `place`; the cause says why."""

    def __init__(self, place: InputLocation, cause: Exception) -> None:
        super().__init__(str(cause))
        self.place = place
        self.cause = cause


class Inputs:
    """The inputs of one command, read one after the other; "-" is standard input.

    Memory does not grow with their size: JSON Lines may be endless, and a line or a
    document may have `MAX_DOCUMENT_BYTES`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names) or (_STDIN,)
        self.bytes_read = 0

    def size(self) -> int | None:
        """Bytes of all inputs, or None if one of them is a stream."""
        found = [os.fstat(0) if name == _STDIN else Path(name).stat() for name in self._names]
        if all(stat.S_ISREG(each.st_mode) for each in found):
            return sum(each.st_size for each in found)
        return None

    async def records(self) -> AsyncGenerator[Record]:
        """Every event of every input. Raises `Unreadable` for one that is broken."""
        for name in self._names:
            async with aclosing(self._records_of(name)) as records:
                async for record in records:
                    yield record

    async def _records_of(self, name: str) -> AsyncGenerator[Record]:
        number, start = 0, self.bytes_read
        try:
            with _opened(name) as descriptor:
                async with aclosing(events(self._chunks(descriptor))) as found:
                    async for offset, data in found:
                        number += 1
                        yield Record(InputLocation(name, number, offset), data)
        except MalformedInput as error:
            raise Unreadable(InputLocation(name, number + 1, error.offset), error) from error
        except OSError as error:
            place = InputLocation(name, number + 1, self.bytes_read - start)
            raise Unreadable(place, error) from error

    async def _chunks(self, descriptor: int) -> AsyncGenerator[bytes]:
        async with aclosing(read_chunks(descriptor)) as chunks:
            async for chunk in chunks:
                self.bytes_read += len(chunk)
                yield chunk


async def events(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[Extent]:
    """The events of one input. Raises `MalformedInput` after those before the fault."""
    began, document, is_first = 0, bytearray(), True
    async with aclosing(_lines(chunks)) as lines:
        async for offset, line in lines:
            if document:
                document += line
                _refuse_over_limit(began, len(document))
            elif line.isspace():
                continue
            elif is_first and _begins_document(line):
                began, document = offset, bytearray(line)
            else:
                yield _event_of_line(offset, line)
            is_first = False
    if document:
        for event in _events_of_document(began, bytes(document)):
            yield event


async def _lines(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[Extent]:
    """The lines of an input, with their ends."""
    base, seen, buffer = 0, 0, bytearray()
    async with aclosing(chunks):
        async for chunk in chunks:
            buffer += chunk
            while end := buffer.find(b"\n", seen) + 1:
                yield Extent(base, bytes(buffer[:end]))
                del buffer[:end]
                base, seen = base + end, 0
            seen = len(buffer)
            _refuse_over_limit(base, seen)
    if buffer:
        yield Extent(base, bytes(buffer))


def _begins_document(line: bytes) -> bool:
    """Whether the first line of an input is only the begin of its single document."""
    if line.lstrip(_BLANKS).startswith(b"["):
        return True
    try:
        line.decode()  # msgspec reports invalid UTF-8 as cut off
        _value.decode(line)
    except (UnicodeDecodeError, RecursionError):
        return False
    except msgspec.DecodeError as error:
        return _is_cut_off(error)
    return False


def _event_of_line(offset: int, line: bytes) -> Extent:
    data = line.lstrip(_BLANKS)
    offset += len(line) - len(data)
    if data[:1] not in _FIRST_BYTES:
        raise MalformedInput(offset, f"expected an event, found {_shown(data[:1])}")
    return Extent(offset, data.rstrip(_BLANKS))


def _events_of_document(offset: int, document: bytes) -> Iterator[Extent]:
    """The elements of an array, byte for byte; another document is its only event.

    Raises `MalformedInput` for a document that is not valid JSON.
    """
    is_array = document.lstrip(_BLANKS).startswith(b"[")
    try:
        document.decode()  # msgspec reports invalid UTF-8 as cut off
        elements = _array.decode(document) if is_array else [_value.decode(document)]
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        offset += len(document) - len(document.lstrip(_BLANKS))
        if _is_cut_off(error):
            problem = "the event or array that begins here does not end"
        else:
            problem = f"the event or array that begins here is not valid JSON: {error}"
        raise MalformedInput(
            offset, f"{problem}; JSON Lines have one event per line, and no line break within it"
        ) from None
    end = 0
    for event in map(bytes, elements):
        start = document.index(event, end)  # before it are only blanks, a bracket or a comma
        end = start + len(event)
        yield Extent(offset + start, event)


def _is_cut_off(error: Exception) -> bool:
    return "truncated" in str(error)


def _refuse_over_limit(offset: int, size: int) -> None:
    if size > MAX_DOCUMENT_BYTES:
        over = f"{size} bytes or more is over the limit of {MAX_DOCUMENT_BYTES} bytes"
        problem = f"a line, array or event of {over}; JSON Lines, one event per line, have no limit"
        raise MalformedInput(offset, problem)


def _shown(byte: bytes) -> str:
    return byte.decode() if b" " < byte <= b"~" else f"0x{byte.hex()}"


@contextmanager
def _opened(name: str) -> Generator[int]:
    if name == _STDIN:
        yield 0
        return
    # Without O_NONBLOCK a named pipe without a writer would block here.
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
