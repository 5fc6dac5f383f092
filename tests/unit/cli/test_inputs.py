"""Events come out of an input byte for byte, in either form and however it arrives."""

import json
import os
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsql_outbox.cli.write import inputs
from dsql_outbox.cli.write.inputs import (
    Extent,
    InputLocation,
    Inputs,
    MalformedInput,
    Record,
    Unreadable,
    events,
)
from dsql_outbox.outbox import MAX_EVENT_BYTES, EventTooLarge, InvalidEvent

NO_UTF8 = "'utf-8' codec can't decode byte 0xff in position 2: invalid start byte"
NO_JSON = "the event or array that begins here is not valid JSON"
NO_END = "the event or array that begins here does not end"
HINT = "; JSON Lines have one event per line, and no line break within it"

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
objects = st.dictionaries(st.text(), values, max_size=4)


@st.composite
def written(
    draw: st.DrawFn,
    what: st.SearchStrategy[object] = values,
    indents: Sequence[int | str | None] = (None, 0, 2, "\t"),
) -> bytes:
    """A value as some serializer writes it."""
    text = json.dumps(
        draw(what),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from(indents)),
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


async def found_in(chunks: Iterable[bytes], found: list[Extent]) -> None:
    async def arriving() -> AsyncGenerator[bytes]:
        for chunk in chunks:
            yield chunk

    async with aclosing(events(arriving())) as extents:
        async for extent in extents:
            found.append(extent)  # noqa: PERF401 - those before a fault count


def find(chunks: Iterable[bytes], found: list[Extent]) -> None:
    """Without an event loop, since nothing waits."""
    with pytest.raises(StopIteration):
        found_in(chunks, found).send(None)


def scan(chunks: Iterable[bytes]) -> list[Extent]:
    found: list[Extent] = []
    find(chunks, found)
    return found


def by_bytes(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


def check(data: bytes, chunks: Iterable[bytes], wanted: list[bytes]) -> None:
    found = scan(chunks)
    assert [extent.data for extent in found] == wanted
    for extent in found:
        assert data[extent.offset : extent.offset + len(extent.data)] == extent.data


@given(st.data(), st.lists(written(), max_size=5))
def test_an_array_gives_its_elements(data: st.DataObject, elements: list[bytes]) -> None:
    commas = [part for element in elements for part in (b",", element)][1:]
    stream = data.draw(spaced([b"[", *commas, b"]"]))
    check(stream, data.draw(chunked(stream)), elements)
    check(stream, by_bytes(stream), elements)


@given(st.data(), st.lists(written(objects, indents=[None]), max_size=5))
def test_each_line_is_an_event(data: st.DataObject, elements: list[bytes]) -> None:
    """With empty lines or without, and with white space around each."""
    blanks = st.text(" \t\r", max_size=2)
    stream = b"\n".join(
        data.draw(blanks).encode() + part + data.draw(blanks).encode()
        for element in elements
        for part in data.draw(st.sampled_from([[element], [element, b""], [b"", element]]))
    )
    check(stream, data.draw(chunked(stream)), elements)
    check(stream, by_bytes(stream), elements)


@given(st.data(), written(objects))
@example(None, b'{"a":"\\\\"}')
def test_a_document_is_one_event(data: st.DataObject | None, event: bytes) -> None:
    stream = data.draw(spaced([event])) if data else event
    check(stream, [stream], [event])
    check(stream, by_bytes(stream), [event])


@given(st.data(), st.lists(written(), min_size=1, max_size=3))
def test_whatever_is_cut_off_is_noticed(data: st.DataObject, elements: list[bytes]) -> None:
    stream = b"[" + b",".join(elements) + b"]"
    cut = data.draw(st.integers(1, len(stream) - 1))
    with pytest.raises(MalformedInput, match=r"byte \d+: "):
        scan([stream[:cut]])


@given(st.binary() | spaced([b"{}", b"\n", b"[", b"]"]), st.data())
def test_any_bytes_end_the_same_way_however_they_arrive(stream: bytes, data: st.DataObject) -> None:
    def outcome(chunks: list[bytes]) -> list[object]:
        found: list[Extent] = []
        try:
            find(chunks, found)
        except MalformedInput as error:
            return [*found, (error.offset, str(error))]
        return [*found]

    assert outcome([stream]) == outcome(by_bytes(stream)) == outcome(data.draw(chunked(stream)))


@pytest.mark.parametrize(
    ("stream", "before", "message"),
    [
        (b"hello", 0, "byte 0: expected an event, found h"),
        (b'{"a":1}\n oops', 1, "byte 9: expected an event, found o"),
        (b'{"a":1}\n}', 1, "byte 8: expected an event, found }"),
        (b"[1 2]", 0, f"byte 0: {NO_JSON}: JSON is malformed: expected ',' or ']' (byte 3){HINT}"),
        (
            b' [{"a":1], {}]',
            0,
            f"byte 1: {NO_JSON}: JSON is malformed: expected ',' or '}}' (byte 8){HINT}",
        ),
        (b'["\xff"]', 0, f"byte 0: {NO_JSON}: {NO_UTF8}{HINT}"),
        (b"\xef\xbb\xbf{}", 0, "byte 0: expected an event, found 0xef"),
        (
            b'{"a":\n1}\n{"b":\n2}',
            0,
            f"byte 0: {NO_JSON}: JSON is malformed: trailing characters (byte 10){HINT}",
        ),
        (b'{"a":', 0, f"byte 0: {NO_END}{HINT}"),
        (b'"a', 0, f"byte 0: {NO_END}{HINT}"),
        (b"[1", 0, f"byte 0: {NO_END}{HINT}"),
    ],
)
def test_a_broken_input_gives_what_comes_before_and_says_where(
    stream: bytes, before: int, message: str
) -> None:
    for chunks in ([stream], by_bytes(stream)):
        found: list[Extent] = []
        with pytest.raises(MalformedInput) as caught:
            find(chunks, found)
        assert str(caught.value) == message
        assert len(found) == before


@pytest.mark.parametrize("bad", [b'{"a":1]', b'{"a":1} {"b":2}', b'{"a":1},', b'{"\xff":1}', b"{]"])
def test_a_bad_line_spoils_no_other(bad: bytes) -> None:
    for stream, wanted in (
        (bad + b'\n{"b":2}', [bad, b'{"b":2}']),
        (b'{"b":2}\n' + bad + b"\n{}", [b'{"b":2}', bad, b"{}"]),
    ):
        check(stream, [stream], wanted)


@pytest.mark.parametrize("cut", [lambda stream: [stream], by_bytes])
@pytest.mark.parametrize("endless", [b'{"a":"12', b"12345678", b'"1234567', b"7       "])
def test_a_line_over_the_limit_ends_the_input_with_both_numbers(
    cut: Callable[[bytes], list[bytes]], endless: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MAX_DOCUMENT_BYTES", 7)
    found: list[Extent] = []
    with pytest.raises(MalformedInput, match=r"byte 8: .*\b(8|\d\d) bytes .* limit of 7 bytes"):
        find(cut(b'{"a":1}\n' + endless + b" " * 7), found)
    assert [extent.data for extent in found] == [b'{"a":1}']


@pytest.mark.parametrize("begin", [b"[", b"{"])
def test_a_document_over_the_limit_stores_nothing(
    begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MAX_DOCUMENT_BYTES", 7)
    with pytest.raises(MalformedInput, match=r"byte 0: .*\b(8|9) bytes .* limit of 7 bytes"):
        scan([begin, b"\n", b"\n\n\n", b"\n\n\n\n"])


def test_memory_does_not_grow_with_the_number_of_lines() -> None:
    event = b'{"a":"' + b"x" * 1000 + b'"}\n'
    count = 0

    async def read() -> None:
        nonlocal count

        async def arriving() -> AsyncGenerator[bytes]:
            for _ in range(100):
                yield event * 64

        async for _ in events(arriving()):
            count += 1

    tracemalloc.start()
    anyio.run(read)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 6400
    assert peak < 1_500_000, "and the input has 6.4 MB"


async def read(given: Inputs) -> list[Record]:
    return [record async for record in given.records()]


@pytest.mark.anyio
async def test_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.jsonl"
    one.write_bytes(b'[ {"a":1}\n, {"b" : 2}]')
    two.write_bytes(b'{"c":3}\n\n')
    given = Inputs([str(one), str(two)])
    assert await read(given) == [
        Record(InputLocation(str(one), 1, 2), b'{"a":1}'),
        Record(InputLocation(str(one), 2, 12), b'{"b" : 2}'),
        Record(InputLocation(str(two), 1, 0), b'{"c":3}'),
    ]
    assert given.bytes_read == given.size() == 31


@pytest.mark.anyio
async def test_a_broken_file_is_named_with_record_and_byte(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"{}")
    two.write_bytes(b"{}\n{}\noops")
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
    given = Inputs([str(pipe)])
    assert given.size() is None
    found: list[Record] = []
    async with anyio.create_task_group() as group:

        async def collect() -> None:
            found.extend(await read(given))

        group.start_soon(collect)
        await anyio.wait_all_tasks_blocked()
        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        os.write(writer, b"{}\n12")
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
