"""The small HTTP server: right answers, and clients that behave badly."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from http import HTTPStatus

import pytest

from dsql_outbox.cli.relay import http_server
from dsql_outbox.cli.relay.http_server import Answer, serving
from dsql_outbox.outbox import SettingsError

pytestmark = pytest.mark.anyio

LARGE = b"x" * (32 << 20)  # more than the kernel takes from a sender whose reader sleeps

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def broken() -> Answer:
    raise RuntimeError("a bug")


ROUTES = {
    "/good": lambda: Answer(HTTPStatus.OK, b'{"good":true}'),
    "/large": lambda: Answer(HTTPStatus.OK, LARGE, "text/plain"),
    "/broken": broken,
}


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[int]:
    monkeypatch.setattr(http_server, "_SECONDS", 0.3)
    async with serving("127.0.0.1", 0, ROUTES) as url:
        yield int(url.rpartition(":")[2])


async def connect(port: int) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port)


async def ask(port: int, request: bytes) -> bytes:
    """All that comes back until the other side hangs up."""
    reader, writer = await connect(port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


async def works(port: int) -> bool:
    return (await ask(port, b"GET /good HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_an_answer_has_its_length_and_ends_the_connection(port: int) -> None:
    answer = await ask(port, b"GET /good?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b'{"good":true}'
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: application/json",
        b"Content-Length: 13",
        b"Cache-Control: no-store",
        b"Connection: close",
    ]


async def test_head_is_the_same_without_the_body(port: int) -> None:
    answer = await ask(port, b"HEAD /good HTTP/1.0\r\n\r\n")
    assert b"Content-Length: 13\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /good HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /good HTTP/2\r\n\r\n", b"505"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\xff\xfe a b\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nX: " + b"x" * 8192, b"400"),
    ],
)
async def test_what_is_not_understood_is_told(port: int, request_: bytes, status: bytes) -> None:
    assert (await ask(port, request_)).startswith(b"HTTP/1.1 " + status)
    assert await works(port)


async def test_a_client_that_says_nothing_is_hung_up_on(port: int) -> None:
    assert await ask(port, b"GET /good") == b""


async def test_an_answer_that_takes_several_writes_arrives_whole(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_SECONDS", 30)
    assert (await ask(port, b"GET /large HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n" + LARGE)


async def test_a_client_that_does_not_read_is_hung_up_on(port: int) -> None:
    reader, writer = await connect(port)
    writer.write(b"GET /large HTTP/1.1\r\n\r\n")
    assert await ask(port, b"a later one, whose time is up") == b""
    got = bytearray()
    with suppress(ConnectionResetError):
        while chunk := await reader.read(1 << 20):
            got += chunk
    writer.transport.abort()
    assert 0 < len(got) < len(LARGE)


async def test_a_route_that_fails_is_a_500_and_a_log_line(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await ask(port, b"GET /broken HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"a bug" not in answer
    assert "/broken" in caplog.text
    assert await works(port)


async def test_clients_that_dawdle_make_room_for_one_more_and_no_more_than_that(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_SECONDS", 30)
    idle = [await connect(port) for _ in range(http_server._CONNECTIONS)]
    assert await works(port)
    assert await idle[0][0].read() == b"", "the oldest had to go"
    for reader, writer in idle[1:]:
        assert not reader.at_eof()
        writer.write(b"GET /good HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    for _, writer in idle:
        writer.transport.abort()


async def test_a_client_that_resets_harms_nobody(port: int) -> None:
    for _ in range(20):
        _, writer = await connect(port)
        writer.write(b"GET /good HTTP/1.1\r\n\r\n")
        writer.transport.abort()
    assert await works(port)


async def test_an_address_that_cannot_be_had_is_refused(port: int) -> None:
    with pytest.raises(SettingsError, match=f"--listen 127.0.0.1:{port}: .*in use"):
        async with serving("127.0.0.1", port, ROUTES):
            pass
