"""Events come out of a stream of JSON byte for byte, in any form and however it arrives."""

import json
import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsql_outbox.cli.write.inputs import (
    InputLocation,
    Inputs,
    Record,
    Unreadable,
)
from dsql_outbox.cli.write.json_scanner import Extent, MalformedInput, Scanner, events
from dsql_outbox.outbox import MAX_EVENT_BYTES, EventTooLarge, InvalidEvent

LIMIT = 1 << 20
NO_UTF8 = "'utf-8' codec can't decode byte 0xff in position 2: invalid start byte"
NO_ARRAY = "the array that begins here is not valid JSON"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(['"', "\\", '\\"', "]}", "[{", "\n", "\u2028", "😀"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
spaces = st.text(" \t\n\r", max_size=3)


@st.composite
def written(draw: st.DrawFn, what: st.SearchStrategy[object] = values) -> bytes:
    """A value as some serializer writes it."""
    text = json.dumps(
        draw(what),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        separators=draw(st.sampled_from([None, (",", ":"), (" , ", " : ")])),
    )
    return text.encode(errors="surrogatepass")


@st.composite
def spaced(draw: st.DrawFn, parts: Iterable[bytes]) -> bytes:
    """The parts with any white space around each."""
    return b"".join(draw(spaces).encode() + part for part in parts) + draw(spaces).encode()


@st.composite
def chunked(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The bytes in pieces of any sizes."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def scan(chunks: Iterable[bytes], limit: int = LIMIT) -> Iterator[Extent]:
    scanner = Scanner(limit)
    for chunk in chunks:
        yield from cut(scanner.feed(chunk))
    yield from cut(scanner.close())


def cut(values: Iterable[Extent]) -> Iterator[Extent]:
    return chain.from_iterable(map(events, values))


def by_bytes(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


def check(data: bytes, chunks: Iterable[bytes], wanted: list[bytes]) -> None:
    found = list(scan(chunks))
    assert [extent.data for extent in found] == wanted
    for extent in found:
        assert data[extent.offset : extent.offset + len(extent.data)] == extent.data


@given(st.data(), st.lists(written(), max_size=5))
def test_an_array_gives_its_elements(data: st.DataObject, events: list[bytes]) -> None:
    commas = [part for event in events for part in (b",", event)][1:]
    stream = data.draw(spaced([b"[", *commas, b"]"]))
    check(stream, data.draw(chunked(stream)), events)
    check(stream, by_bytes(stream), events)


@given(
    st.data(),
    st.lists(written(st.dictionaries(st.text(), values, max_size=4) | scalars), max_size=5),
)
def test_values_in_a_row_are_told_apart(data: st.DataObject, events: list[bytes]) -> None:
    """JSON Lines, pretty-printed or not, with empty lines or without."""
    parts = [part for event in events for part in (event, b"\n")]
    stream = data.draw(spaced(parts))
    check(stream, data.draw(chunked(stream)), events)
    check(stream, by_bytes(stream), events)


@given(st.data(), st.lists(written(st.dictionaries(st.text(), values, max_size=3)), max_size=4))
def test_objects_need_nothing_between_them(data: st.DataObject, events: list[bytes]) -> None:
    stream = b"".join(events)
    check(stream, data.draw(chunked(stream)), events)


@given(written())
@example(b'{"a":"\\\\"}')
def test_one_value_needs_no_line_feed(event: bytes) -> None:
    if not event.startswith(b"["):
        check(event, [event], [event])


@given(st.data(), st.lists(written(), min_size=1, max_size=3))
def test_whatever_is_cut_off_is_noticed(data: st.DataObject, events: list[bytes]) -> None:
    stream = b"[" + b",".join(events) + b"]"
    cut = data.draw(st.integers(1, len(stream) - 1))
    with pytest.raises(MalformedInput, match=r"byte \d+: "):
        list(scan([stream[:cut]]))


@given(st.binary(), st.data())
def test_any_bytes_end_the_same_way_however_they_arrive(stream: bytes, data: st.DataObject) -> None:
    def outcome(chunks: list[bytes]) -> list[object]:
        found: list[object] = []
        try:
            found.extend(scan(chunks))
        except MalformedInput as error:
            found.append((error.offset, str(error)))
        return found

    assert outcome([stream]) == outcome(by_bytes(stream)) == outcome(data.draw(chunked(stream)))


@pytest.mark.parametrize(
    ("stream", "before", "message"),
    [
        (b"hello", 0, "byte 0: expected an event, found h"),
        (b'{"a":1}, {"b":2}', 1, "byte 7: expected an event, found ,"),
        (b'{"a":1}}', 1, "byte 7: expected an event, found }"),
        (b"{}[1 2]", 1, f"byte 2: {NO_ARRAY}: JSON is malformed: expected ',' or ']' (byte 3)"),
        (
            b'[{"a":1], {}]',
            0,
            f"byte 0: {NO_ARRAY}: JSON is malformed: expected ',' or '}}' (byte 7)",
        ),
        (b'["\xff"]', 0, f"byte 0: {NO_ARRAY}: {NO_UTF8}"),
        (b"\xef\xbb\xbf{}", 0, "byte 0: expected an event, found 0xef"),
        (b'{"a":1}\n{"b":', 1, "byte 8: the event or array that begins here does not end"),
        (b'"a', 0, "byte 0: the event or array that begins here does not end"),
        (b"[1", 0, "byte 0: the event or array that begins here does not end"),
    ],
)
def test_a_broken_stream_gives_what_comes_before_and_says_where(
    stream: bytes, before: int, message: str
) -> None:
    found: list[bytes | None] = []
    with pytest.raises(MalformedInput) as caught:
        found.extend(extent.data for extent in scan(by_bytes(stream)))
    assert str(caught.value) == message
    scanned = scan([stream])
    assert len([next(scanned) for _ in range(before)]) == before
    with pytest.raises(MalformedInput):
        next(scanned)


def test_a_line_with_wrong_brackets_spoils_no_other() -> None:
    stream = b'{"a":1]\n{"b":2}'
    check(stream, [stream], [b'{"a":1]', b'{"b":2}'])


@pytest.mark.parametrize("cut", [lambda stream: [stream], by_bytes])
@pytest.mark.parametrize("endless", [b"[1,2,3", b'{"a":"', b"12345678", b'"1234567', b"[1,2,34]"])
def test_what_is_over_the_limit_ends_the_input_with_both_numbers(
    cut: Callable[[bytes], list[bytes]], endless: bytes
) -> None:
    found = scan(cut(b"[1,2,3]\n" + endless + b" " * 7), limit=7)
    assert [next(found).data for _ in range(3)] == [b"1", b"2", b"3"]
    with pytest.raises(MalformedInput, match=r"byte 8: .* of (8|\d\d) bytes .* limit of 7 bytes"):
        list(found)


def test_memory_does_not_grow_with_the_number_of_lines() -> None:
    event = b'{"a":"' + b"x" * 1000 + b'"}\n'
    tracemalloc.start()
    found = sum(1 for _ in scan([event * 64] * 100, limit=2000 * 64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == 6400
    assert peak < 500_000


async def read(inputs: Inputs) -> list[Record]:
    return [record async for record in inputs.records()]


@pytest.mark.anyio
async def test_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.jsonl"
    one.write_bytes(b'[ {"a":1}\n, {"b" : 2}]')
    two.write_bytes(b'{"c":3}\n\n')
    inputs = Inputs([str(one), str(two)])
    assert await read(inputs) == [
        Record(InputLocation(str(one), 1, 2), b'{"a":1}'),
        Record(InputLocation(str(one), 2, 12), b'{"b" : 2}'),
        Record(InputLocation(str(two), 1, 0), b'{"c":3}'),
    ]
    assert inputs.bytes_read == inputs.size() == 31


@pytest.mark.anyio
async def test_a_broken_file_is_named_with_record_and_byte(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"{}")
    two.write_bytes(b"{} {} oops")
    with pytest.raises(Unreadable, match="byte 6: expected an event, found o") as caught:
        await read(Inputs([str(one), str(two)]))
    assert caught.value.place == InputLocation(str(two), 3, 6)


@pytest.mark.anyio
async def test_a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(Unreadable, match="No such file") as caught:
        await read(Inputs([gone]))
    assert caught.value.place == InputLocation(gone, 1, 0)


@pytest.mark.anyio
async def test_a_named_pipe_is_waited_for_and_has_no_size(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    inputs = Inputs([str(pipe)])
    assert inputs.size() is None
    found: list[Record] = []
    async with anyio.create_task_group() as group:

        async def collect() -> None:
            found.extend(await read(inputs))

        group.start_soon(collect)
        await anyio.wait_all_tasks_blocked()
        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        os.write(writer, b"{} 12")
        os.close(writer)
    assert [record.data for record in found] == [b"{}", b"12"]


def test_an_event_over_the_limit_is_refused_with_its_size() -> None:
    record = Record(InputLocation("-", 1, 0), b"x" * (MAX_EVENT_BYTES + 1))
    with pytest.raises(EventTooLarge, match=str(MAX_EVENT_BYTES + 1)):
        record.parse()
    assert record.id() is None


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"eventHeader":{"uuid":"0b6f3c1e-7a52-4d0e-9c41-5f2f8d3a1101"}}', True),
        (b'{"eventHeader":{"uuid":7}}', False),
        (b'{"eventHeader":{}}', False),
        (b"{}", False),
        (b"[" * 100_000, False),
        (b"{]", False),
    ],
)
def test_an_invalid_event_gives_its_id_if_it_has_one(data: bytes, found: bool) -> None:
    record = Record(InputLocation("-", 1, 0), data)
    with pytest.raises(InvalidEvent):
        record.parse()
    assert (record.id() is not None) == found
