"""The HTTP server: right answers, and clients that behave badly."""

import asyncio
import resource
import socket
from collections.abc import AsyncGenerator
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any

import pytest

from dsql_outbox.http_server import server
from dsql_outbox.http_server.fixed_paths import Answer, fixed_paths
from dsql_outbox.http_server.server import SECURITY_HEADERS, serving
from dsql_outbox.outbox import SettingsError

pytestmark = pytest.mark.anyio

LARGE = b"x" * (32 << 20)  # more than the kernel takes from a sender whose reader sleeps
COUNT = 200  # silent clients, more than may be connected

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def broken() -> Answer:
    raise RuntimeError("a bug")


PATHS = fixed_paths(
    {
        "/good": lambda: Answer(HTTPStatus.OK, b'{"good":true}'),
        "/large": lambda: Answer(HTTPStatus.OK, LARGE, "text/plain"),
        "/broken": broken,
    }
)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Fixed paths, and what an application may do besides."""
    start = {"type": "http.response.start", "status": 200, "headers": []}
    match scope["path"]:
        case "/echo":
            body = (await receive())["body"]
            await send(start)
            await send({"type": "http.response.body", "body": body})
        case "/parts":
            await send(start)
            for part in (b"one ", b"two"):
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})
        case "/cut":
            await send(start)
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            raise RuntimeError("a bug")
        case "/stream":
            await send(start)
            await send({"type": "http.response.body", "body": b"on", "more_body": True})
            await receive()
            scope["state"] = (await receive())["type"]
            LEFT.append(scope["state"])
        case "/split":
            await send(start | {"headers": [(b"location", b"/a\r\nset-cookie: x")]})
        case _:
            await PATHS(scope, receive, send)


LEFT: list[str] = []


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[int]:
    monkeypatch.setattr(server, "SECONDS", 0.5)
    async with serving("127.0.0.1", 0, application) as url:
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
    return (await ask(port, b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(
        b"HTTP/1.1 200 OK\r\n"
    )


def headers_of(answer: bytes) -> dict[str, str]:
    head = answer.partition(b"\r\n\r\n")[0].decode()
    return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])


async def test_an_answer_has_its_length_and_ends_the_connection(port: int) -> None:
    answer = await ask(port, b"GET /good?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'\r\n\r\n{"good":true}')
    headers = headers_of(answer)
    assert (headers["content-length"], headers["content-type"]) == ("13", "application/json")
    assert headers["connection"] == "close"
    assert headers["date"].endswith("GMT")


async def test_head_is_the_same_without_the_body(port: int) -> None:
    answer = await ask(port, b"HEAD /good HTTP/1.0\r\n\r\n")
    assert b"content-length: 13\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"POST /good HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"GET /good HTTP/2.0\r\n\r\n", b"505"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\xff\xfe a b\r\n\r\n", b"400"),
        (b"GET good HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.0\r\nHost: x\r\nhost: x\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x, y\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: ann@x\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x:80:81\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\n folded: x\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nX: a\nY: b\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n", b"400"),
        (
            b"GET /good HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n",
            b"400",
        ),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"411"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 16385\r\n\r\n" + b"x" * 16385, b"413"),
        (b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 18 + b"\r\n\r\nx", b"413"),
        (b"GET /good HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (33 << 10), b"431"),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", b"500"),
        (b"GET /split HTTP/1.1\r\nHost: x\r\n\r\n", b"500"),
    ],
)
async def test_a_fault_is_answered_with_its_status_and_the_security_headers(
    port: int, request_: bytes, status: bytes
) -> None:
    answer = await ask(port, request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert (
        SECURITY_HEADERS.items()
        <= {name: headers_of(answer)[name.lower()] for name in SECURITY_HEADERS}.items()
    )
    assert "set-cookie" not in headers_of(answer)
    assert await works(port)


@pytest.mark.parametrize(
    "rest",
    [
        "1.0",
        "1.1\r\nHost:",
        "1.1\r\nHost: a_b.Example.com:9464",
        "1.1\r\nHost: [fe80::1%25eth0]:80",
        "1.1\r\nhost: 127.0.0.1 ",
    ],
)
async def test_a_host_is_a_name_or_an_address_and_http_1_0_needs_none(port: int, rest: str) -> None:
    answer = await ask(port, f"GET /good HTTP/{rest}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("size", [0, 1, 4096, 16384])
async def test_a_body_reaches_the_application_whole(port: int, size: int) -> None:
    body = b"x" * size
    request = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (size, body)
    assert (await ask(port, request + b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(
        b"\r\n\r\n" + body
    )


async def test_an_answer_in_parts_ends_with_the_connection(port: int) -> None:
    answer = await ask(port, b"GET /parts HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.endswith(b"\r\n\r\none two")
    assert "content-length" not in headers_of(answer)


async def test_an_answer_that_breaks_off_does_not_look_complete(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await connect(port)
    writer.write(b"GET /cut HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.transport.abort()
    assert "/cut could not be answered" in caplog.text


async def test_an_application_learns_that_its_client_has_gone(port: int) -> None:
    LEFT.clear()
    reader, writer = await connect(port)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"on")).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    async with asyncio.timeout(10):
        while not LEFT:
            await works(port)
    assert LEFT == ["http.disconnect"]


@pytest.mark.parametrize(
    "part", [b"", b"GET /good", b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_a_client_that_stays_silent_is_hung_up_on(port: int, part: bytes) -> None:
    assert await ask(port, part) == b""


async def test_an_answer_that_takes_several_writes_arrives_whole(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SECONDS", 30)
    assert (await ask(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(
        b"\r\n\r\n" + LARGE
    )


async def test_a_client_that_reads_slowly_gets_a_large_answer_whole(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a thin link the whole of it takes longer than a client may be silent."""
    monkeypatch.setattr(server, "SECONDS", 1.0)
    reader, writer = await connect(port)
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    got, began = bytearray(), monotonic()
    while chunk := await reader.read(1 << 16):
        got += chunk
        if monotonic() - began < 1.5 * server.SECONDS:
            await asyncio.sleep(0.02)
    writer.transport.abort()
    assert got.endswith(b"\r\n\r\n" + LARGE)


async def test_a_client_that_does_not_read_is_hung_up_on(port: int) -> None:
    reader, writer = await connect(port)
    writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(2):  # in the time of the first, the kernel may still take parts
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
    answer = await ask(port, b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"a bug" not in answer
    assert "/broken" in caplog.text


async def test_silent_clients_make_room_and_answers_in_progress_stay(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SECONDS", 60)
    reader, writer = await connect(port)
    writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b"on")
    idle = [await connect(port) for _ in range(COUNT)]
    assert await works(port)
    async with asyncio.timeout(10):
        assert await idle[0][0].read() == b"", "the oldest had to go"
    late, its_writer = idle[-1]
    its_writer.write(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await late.read()).startswith(b"HTTP/1.1 200")
    assert not reader.at_eof()
    for _, each in (*idle, (reader, writer)):
        each.transport.abort()


@pytest.mark.parametrize("spare", [3, 40])
async def test_without_descriptors_it_lets_silent_clients_go_and_logs_one_line(
    port: int, spare: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "SECONDS", 60)
    monkeypatch.setattr(server, "_SHARE", 1)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(COUNT)]
    last = socket.socket()
    free = last.fileno() + 1 + spare
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        loop = asyncio.get_running_loop()
        for each in (*clients, last):
            each.setblocking(False)
            await loop.sock_connect(each, ("127.0.0.1", port))
        await loop.sock_sendall(last, b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(60):
            assert (await loop.sock_recv(last, 100)).startswith(b"HTTP/1.1 200")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for each in (*clients, last):
            each.close()
    assert caplog.text.count("no HTTP connection can be accepted") == 1
    assert len(caplog.text) < 1000


async def test_a_client_that_resets_harms_nobody(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    for path in (b"good", b"parts", b"stream", b"large") * 5:
        _, writer = await connect(port)
        writer.write(b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        writer.transport.abort()
    assert await works(port)
    assert caplog.text == ""


async def test_an_address_that_cannot_be_had_is_refused(port: int) -> None:
    with pytest.raises(SettingsError, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
        async with serving("127.0.0.1", port, application):
            pass
    with pytest.raises(SettingsError, match=r"cannot listen on no\.such\.host\.invalid:0"):
        async with serving("no.such.host.invalid", 0, application):
            pass


async def test_without_one_of_the_addresses_of_a_host_none_is_listened_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def addresses(*_: object) -> list[tuple[socket.AddressFamily, str]]:
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "127.0.0.1")]

    taken = list[socket.socket]()
    listener = server._listener

    def listen(*given: Any) -> socket.socket:
        taken.append(listener(*given))
        return taken[-1]

    monkeypatch.setattr(server, "_addresses", addresses)
    monkeypatch.setattr(server, "_listener", listen)
    with pytest.raises(SettingsError, match="in use"):
        async with serving("localhost", 0, application):
            pass
    assert [each.fileno() for each in taken] == [-1]


async def test_a_name_of_this_machine_is_served_on_each_of_its_addresses() -> None:
    async with serving("localhost", 0, application) as url:
        assert url.startswith("http://localhost:")
        port = int(url.rpartition(":")[2])
        found = await asyncio.get_running_loop().getaddrinfo("localhost", port)
        served = set()
        for address in {each[4][0] for each in found}:
            with suppress(OSError):  # a machine without IPv6 may name ::1
                # The kernel accepts for the server, so this may block.
                socket.create_connection((str(address), port), 5).close()
                served.add(address)
    assert served
