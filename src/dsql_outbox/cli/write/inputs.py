"""Events from files and from standard input, one at a time and byte for byte."""

import os
import stat
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox import ParsedEvent, parse_event

from .descriptors import read_chunks
from .json_scanner import Extent, MalformedInput, Scanner, events

MAX_ARRAY_BYTES: Final = 16 << 20
"""An array is read whole before its first event is stored."""

_STDIN: Final = "-"


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

    Each holds one event, arrays of events, or JSON Lines. Memory does not grow
    with their size: an array may have `MAX_ARRAY_BYTES`.
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
        number = 0
        start = self.bytes_read
        try:
            with _opened(name) as descriptor:
                async with aclosing(self._values(descriptor)) as values:
                    async for value in values:
                        for offset, data in events(value):
                            number += 1
                            yield Record(InputLocation(name, number, offset), data)
        except MalformedInput as error:
            raise Unreadable(InputLocation(name, number + 1, error.offset), error) from error
        except OSError as error:
            place = InputLocation(name, number + 1, self.bytes_read - start)
            raise Unreadable(place, error) from error

    async def _values(self, descriptor: int) -> AsyncGenerator[Extent]:
        scanner = Scanner(MAX_ARRAY_BYTES)
        async with aclosing(read_chunks(descriptor)) as chunks:
            async for chunk in chunks:
                for value in scanner.feed(chunk):
                    yield value
                self.bytes_read += len(chunk)
        for value in scanner.close():
            yield value


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
