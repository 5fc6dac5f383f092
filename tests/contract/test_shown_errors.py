"""No error shows a password, a token or a payload, whatever a broker repeats of what it got."""

import json
import re
import socketserver
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

import nats
import pamqp.commands
import pamqp.frame
import pytest
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed
from tests.support.brokers.nats_listener import subscribed
from tests.support.brokers.sqs_server import CREDENTIALS, scripted_sqs
from tests.support.stand_ins import StandIn

from dsql_outbox.brokers.rabbitmq.confirmation import outcome_of_closing
from dsql_outbox.outbox import SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted
from dsql_outbox.publisher.sinks.url import read_text
from dsql_outbox.testing.sink_contract import new_message, published

from .conftest import NatsPlace

pytestmark = pytest.mark.anyio

CANARY: Final = "canary"
PAYLOAD: Final = b'{"name":"canary"}'

_COMMAND: Final = re.compile(rb"\*\d+\r\n\$\d+\r\n(\w+)\r\n")
_REPLIES: Final = {b"MULTI": b"+OK\r\n", b"PING": b"+QUEUED\r\n", b"EXEC": b"*1\r\n+PONG\r\n"}


def quoted(data: bytes) -> str:
    return data.decode(errors="replace").replace("\r\n", " ")


def as_redis(data: bytes) -> bytes:
    """Knows transactions, and quotes any other command."""
    said = f"-ERR unknown command 'X', with args beginning with: {quoted(data)}\r\n".encode()
    names = [found[1] for found in _COMMAND.finditer(data)]
    return b"".join(_REPLIES.get(name, said) for name in names)


def as_nats(data: bytes) -> bytes:
    return f"-ERR 'Unknown Protocol Operation {quoted(data)}'\r\n".encode()


def as_rabbitmq(data: bytes) -> bytes:
    if data.startswith(b"AMQP"):
        start = pamqp.commands.Connection.Start(
            server_properties={}, mechanisms="PLAIN", locales="en_US"
        )
        return pamqp.frame.marshal(start, 0)
    _, _, taken = pamqp.frame.unmarshal(data)
    text = f"ACCESS_REFUSED - no such login: {getattr(taken, 'response', taken)}"
    close = pamqp.commands.Connection.Close(403, text.replace("\0", " "), 10, 11)
    return pamqp.frame.marshal(close, 0)


class Echo(socketserver.BaseRequestHandler):
    """Answers by what it got."""

    greeting: ClassVar[bytes]
    answer: ClassVar[Callable[[bytes], bytes]]

    def handle(self) -> None:
        self.request.sendall(self.greeting)
        while data := self.request.recv(1 << 16):
            self.request.sendall(type(self).answer(data))


_INFO: Final = b'INFO {"server_id":"x","version":"2","max_payload":9999,"auth_required":true}\r\n'
ECHOES: Final = {"redis": (b"", as_redis), "nats": (_INFO, as_nats), "rabbitmq": (b"", as_rabbitmq)}


@pytest.fixture(params=ECHOES)
def echo(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """The scheme and the port of a broker that repeats what it gets."""
    greeting, answer = ECHOES[request.param]
    made = {"greeting": greeting, "answer": staticmethod(answer)}
    with StandIn(type("Handler", (Echo,), made)).serving() as server:
        yield request.param, server.server_port


def shown(error: BaseException | None, caplog: pytest.LogCaptureFixture) -> str:
    """All that a user may see of an error."""
    told = "" if error is None else "".join(traceback.format_exception(error))
    logged = [
        each.getMessage() + str(each.exc_text) + str(vars(each))
        for each in caplog.records
        if not each.name.startswith(("botocore", "boto3", "urllib3"))
    ]
    return "\n".join([str(error), repr(error), told, *logged])


@pytest.mark.parametrize("form", ["joe:canary@", "joe@?password_file", "canary@", "@?token_file"])
async def test_no_error_of_an_opening_shows_the_login(
    echo: tuple[str, int], form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scheme, port = echo
    login, _, parameter = form.partition("?")
    forms = {"nats": ("canary@", "token_file")}.get(scheme, ("password_file",))
    if login != "joe:canary@" and form not in forms and parameter not in forms:
        pytest.skip("the sink has no such login")
    file = tmp_path / "secret"
    file.write_text(CANARY)
    more = f"&{parameter}={file}" if parameter else ""
    caplog.set_level(0)
    with pytest.raises(SinkUnavailable) as raised:
        async with open_sink(f"{scheme}://{login.lstrip('@')}127.0.0.1:{port}?timeout=1{more}"):
            pass
    assert CANARY not in shown(raised.value, caplog)


@pytest.mark.parametrize("content", [b"canary\xff", b"\xef\xbb\xbfcanary"])
@pytest.mark.parametrize("when", ["parsed", "opened"])
@pytest.mark.parametrize("url", [
    "redis://joe@127.0.0.1:{}?password_file={}",
    "rabbitmq://joe@127.0.0.1:{}?password_file={}",
    "nats://127.0.0.1:{}?token_file={}",
])  # fmt: skip
async def test_a_file_that_is_no_text_is_not_shown(
    content: bytes, when: str, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    file = tmp_path / "secret"
    file.write_bytes(content if when == "parsed" else b"first")
    greeting, answer = ECHOES[url.partition(":")[0]]
    made = {"greeting": greeting, "answer": staticmethod(answer)}
    with StandIn(type("Handler", (Echo,), made)).serving() as server:
        place = f"{url.format(server.server_port, file)}&timeout=1"
        refused = pytest.raises(SettingsError if when == "parsed" else SinkUnavailable)
        with refused as raised:
            sink = open_sink(place)
            file.write_bytes(content)
            async with sink:
                pass
    chain: BaseException | None = raised.value
    while chain is not None:
        assert CANARY not in repr(chain)
        chain = chain.__cause__ or chain.__context__
    assert CANARY not in shown(raised.value, caplog)


def test_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_bytes(b"\xef\xbb\xbfa=b")
    with pytest.raises(SettingsError, match=f"config of X: cannot read {file}: .*byte order mark"):
        read_text("X", "config", str(file))


async def test_redis_shows_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    made = {"greeting": b"", "answer": staticmethod(as_redis)}
    with StandIn(type("Handler", (Echo,), made)).serving() as server:
        async with open_sink(f"redis://127.0.0.1:{server.server_port}?timeout=1") as sink:
            (outcome,) = await published(sink, [new_message(payload=PAYLOAD)])
    assert "unknown command 'X'" in str(outcome)
    assert CANARY not in str(outcome) + shown(None, caplog)


async def test_nats_shows_no_payload(
    nats_place: NatsPlace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    client: Any = await nats.connect(nats_place.url)  # pyright: ignore[reportUnknownMemberType]

    async def refuse(message: Any) -> None:
        error = {"err_code": 10999, "description": f"cannot store {message.data.decode()}"}
        await message.respond(json.dumps({"error": error}).encode())

    await subscribed(client, "canaries.New", refuse)
    async with open_sink(nats_place.url) as sink:
        (outcome,) = await published(sink, [new_message(topic="canaries.New", payload=PAYLOAD)])
    await client.close()
    assert "10999" in str(outcome)
    assert CANARY not in str(outcome) + shown(None, caplog)


async def test_sqs_shows_no_payload(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(0)
    for name, value in CREDENTIALS.items():  # else the SDK would look for some on this machine
        monkeypatch.setenv(name, value)

    def refuse(entries: list[dict[str, str]]) -> tuple[int, dict[str, object]]:
        text = f"Value '{entries[0]['MessageBody']}' failed to satisfy a constraint"
        return 400, {"__type": "com.amazonaws.sqs#InvalidMessageContents", "message": text}

    with scripted_sqs() as server:
        url = f"sqs://events?region=eu-west-1&endpoint={server.endpoint}"
        async with open_sink(url) as sink:
            server.script = [refuse]
            (outcome,) = await published(sink, [new_message(payload=PAYLOAD)])
    assert outcome not in (Delivered(), NotAttempted())
    assert "InvalidMessageContents" in str(outcome)
    assert CANARY not in str(outcome) + shown(None, caplog)


@pytest.mark.parametrize("kind", [ChannelAccessRefused, ChannelPreconditionFailed])
def test_rabbitmq_shows_no_payload(kind: Any) -> None:
    outcome = outcome_of_closing(kind(f"PRECONDITION_FAILED - cannot take {PAYLOAD!r}"))
    assert "PRECONDITION_FAILED" in str(outcome)
    assert CANARY not in str(outcome)
