"""Events come out of an input line by line, byte for byte, however it arrives."""

import os
import tracemalloc
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from uuid import UUID

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsql_outbox.cli.write import inputs
from dsql_outbox.cli.write.inputs import Inputs, Line, LineTooLong, Unreadable

pytestmark = pytest.mark.anyio


async def read(names: Sequence[str], found: list[Line]) -> None:
    async with aclosing(Inputs(names).lines()) as parts:
        async for part in parts:
            found.extend(part)


@given(
    lines=st.lists(st.binary(max_size=8).map(lambda data: data.replace(b"\n", b""))),
    data=st.data(),
)
def test_each_line_has_its_number_however_its_bytes_arrive(
    lines: list[bytes], data: st.DataObject
) -> None:
    text = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    async def arriving(_: int) -> AsyncGenerator[bytes]:
        for piece in pieces:
            if piece:
                yield piece

    found: list[Line] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "read_chunks", arriving)
        anyio.run(read, ["-"], found)
    stripped = [(n, line.strip(b" \t\r\n")) for n, line in enumerate(lines, 1)]
    assert found == [Line("-", n, line) for n, line in stripped if line]


async def test_inputs_are_read_one_after_the_other_and_each_counts_its_own_lines(
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b'\n{"a": 1}\r\n\n{"b": 2}')
    two.write_bytes(b"[3]\n")
    names = [str(one), str(two), str(one)]
    found: list[Line] = []
    await read(names, found)
    first = [(2, b'{"a": 1}'), (4, b'{"b": 2}')]
    assert found == [
        Line(name, *each)
        for name, lines in zip(names, (first, [(1, b"[3]")], first), strict=True)
        for each in lines
    ]
    assert Inputs(names).size() == 2 * one.stat().st_size + two.stat().st_size


async def test_a_line_over_the_limit_is_named_after_the_lines_before_it(tmp_path: Path) -> None:
    path, found = tmp_path / "document", list[Line]()
    path.write_bytes(b"{}\n{}\n" + b"[" * (inputs.MAX_LINE_BYTES + (1 << 19)))
    with pytest.raises(Unreadable) as raised:
        await read([str(path)], found)
    assert [line.number for line in found] == [1, 2]
    assert isinstance(raised.value.cause, LineTooLong)
    assert raised.value.line == Line(str(path), 3, b"")
    assert "jq -c" in str(raised.value)


async def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    path = tmp_path / "long"  # of 20 MB: a chunk and its lines take less than 1 MB
    path.write_bytes(b"".join(b"%01023d\n" % n for n in range(20_000)))
    tracemalloc.start()
    try:
        last = Line("", 0, b"")
        async with aclosing(Inputs([str(path)]).lines()) as parts:
            async for part in parts:
                last = part[-1] if part else last
        assert last.number == 20_000
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


async def test_an_input_that_fails_is_named_with_the_line_that_could_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def failing(_: int) -> AsyncGenerator[bytes]:
        yield b"{}\n{"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(inputs, "read_chunks", failing)
    with pytest.raises(Unreadable, match="Input/output error") as raised:
        await read(["-"], [])
    assert raised.value.line == Line("-", 2, b"")


async def test_a_named_pipe_is_waited_for_and_has_no_size(tmp_path: Path) -> None:
    path, found = tmp_path / "pipe", list[Line]()
    os.mkfifo(path)
    assert Inputs([str(path)]).size() is None
    async with anyio.create_task_group() as group:
        group.start_soon(read, [str(path)], found)
        await anyio.wait_all_tasks_blocked()
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(writer, b"{}\n12")
        os.close(writer)
    assert [line.data for line in found] == [b"{}", b"12"]


@pytest.mark.parametrize(
    ("line", "event_id"),
    [
        (b'{"eventHeader": {"uuid": "%s"}}' % str(UUID(int=7)).encode(), UUID(int=7)),
        (b'{"eventHeader": {"uuid": 7}}', None),
        (b'{"eventHeader": {}}', None),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
)
def test_the_id_of_an_invalid_event_is_found_if_it_has_one(
    line: bytes, event_id: UUID | None
) -> None:
    assert Line("-", 1, line).event_id() == event_id
