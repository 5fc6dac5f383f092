"""No error shows a password, a token or a payload, whatever a broker repeats of what it got."""

import json
import re
import socketserver
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import nats
import pamqp.commands
import pamqp.frame
import pytest
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed
from confluent_kafka import KafkaError
from tests.support.brokers.nats_listener import subscribed
from tests.support.brokers.sqs_server import CREDENTIALS
from tests.support.brokers.stubbed_aws import stubbed
from tests.support.stand_ins import StandIn

from dsql_outbox.brokers.kafka.reports import Heard, Reports
from dsql_outbox.brokers.rabbitmq.confirmation import outcome_of_closing
from dsql_outbox.outbox import SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Sink
from dsql_outbox.publisher.sinks.url import read_text
from dsql_outbox.testing.sink_contract import Answers, new_message, published

pytestmark = pytest.mark.anyio

CANARY: Final = "canary"
PAYLOAD: Final = b'{"name":"canary"}'
NO_TEXT: Final = b'{"name":"canary\xff"}'
NO_JSON: Final = b'{"name":"canary"'
QUOTE: Final = f"cannot take {PAYLOAD!r} with the attribute mark={CANARY}"
TOPIC: Final = "canaries.New"

Opening = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Sink]]
"""Opens a sink whose broker or client refuses a message, and repeats it in the refusal."""

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


@asynccontextmanager
async def quoting_redis(_: pytest.FixtureRequest) -> AsyncGenerator[Sink]:
    made = {"greeting": b"", "answer": staticmethod(as_redis)}
    with StandIn(type("Handler", (Echo,), made)).serving() as server:
        async with open_sink(f"redis://127.0.0.1:{server.server_port}?timeout=1") as sink:
            yield sink


@asynccontextmanager
async def quoting_nats(request: pytest.FixtureRequest) -> AsyncGenerator[Sink]:
    url = request.getfixturevalue("nats_place").url
    client: Any = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType]

    async def refuse(message: Any) -> None:
        told = f"cannot store {message.data!r} {message.headers}"
        error = {"err_code": 10999, "description": told}
        await message.respond(json.dumps({"error": error}).encode())

    await subscribed(client, TOPIC, refuse)
    async with open_sink(url) as sink:
        yield sink
    await client.close()


@asynccontextmanager
async def refusing_kafka(request: pytest.FixtureRequest) -> AsyncGenerator[Sink]:
    broker = request.getfixturevalue("kafka_mock")
    broker.make_topic(TOPIC)
    async with open_sink(f"kafka://{broker.bootstrap}?timeout=5") as sink:
        broker.refuse_next(*[KafkaError.INVALID_RECORD] * 2)  # together with others, and alone
        yield sink


FAILED: Final = {"Id": "0", "SenderFault": True, "Code": "InvalidParameter", "Message": QUOTE}
AWS: Final[dict[str, Any]] = {
    "sqs": (
        "sqs://events?region=eu-west-1",
        ("get_queue_url", {"QueueUrl": "https://sqs.example/1/events"}),
        ("send_message_batch", {"Successful": [], "Failed": [FAILED]}),
    ),
    "sns": (
        "sns://arn:aws:sns:eu-west-1:123456789012:events",
        ("get_topic_attributes", {"Attributes": {}}),
        ("publish_batch", {"Successful": [], "Failed": [FAILED]}),
    ),
    "events": (
        "eventbridge://events",
        ("describe_event_bus", {"Name": "events"}),
        (
            "put_events",
            {
                "FailedEntryCount": 1,
                "Entries": [{"ErrorCode": "InvalidArgument", "ErrorMessage": QUOTE}],
            },
        ),
    ),
}


def quoting_aws(api: str, code: str | None = None) -> Opening:
    """A service that refuses one message, or the request with a code; with "" it gets none."""
    url, found, (send, refused) = AWS[api]

    @asynccontextmanager
    async def refusing(_: pytest.FixtureRequest) -> AsyncGenerator[Sink]:
        with stubbed(api) as stub:
            stub.add_response(*found)
            if code is None:
                stub.add_response(send, refused)
            elif code:
                stub.add_client_error(send, code, QUOTE, 400)
            async with open_sink(url) as sink:
                yield sink

    return refusing


def full_disk(_: pytest.FixtureRequest) -> AbstractAsyncContextManager[Sink]:
    return open_sink("jsonl:/dev/full")


def file(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Sink]:
    return open_sink(f"jsonl:{request.getfixturevalue('tmp_path')}/events")


def standard_output(_: pytest.FixtureRequest) -> AbstractAsyncContextManager[Sink]:
    return open_sink("stdout:")


REFUSALS: Final[dict[str, tuple[Opening, bytes, str]]] = {
    "redis": (quoting_redis, PAYLOAD, "unknown command 'X'"),
    "nats": (quoting_nats, PAYLOAD, "10999"),
    "kafka": (refusing_kafka, PAYLOAD, "INVALID_RECORD"),
    "sqs": (quoting_aws("sqs"), PAYLOAD, "InvalidParameter"),
    "sns": (quoting_aws("sns"), PAYLOAD, "InvalidParameter"),
    "eventbridge": (quoting_aws("events"), PAYLOAD, "InvalidArgument"),
    "aws, a request": (quoting_aws("sqs", "BatchRequestTooLong"), PAYLOAD, "BatchRequestTooLong"),
    "aws, a right": (quoting_aws("sns", "AccessDenied"), PAYLOAD, "AccessDenied"),
    "aws, all": (quoting_aws("events", "InternalFailure"), PAYLOAD, "InternalFailure"),
    "sqs, no text": (quoting_aws("sqs", ""), NO_TEXT, "only UTF-8"),
    "eventbridge, no text": (quoting_aws("events", ""), NO_TEXT, "only UTF-8"),
    "eventbridge, no JSON": (quoting_aws("events", ""), NO_JSON, "only JSON"),
    "jsonl": (full_disk, PAYLOAD, "No space left on device"),
    "jsonl, no text": (file, NO_TEXT, "only UTF-8"),
    "stdout, no text": (standard_output, NO_TEXT, "only UTF-8"),
}


@pytest.mark.parametrize(("opening", "payload", "known"), REFUSALS.values(), ids=REFUSALS)
async def test_no_refusal_shows_the_message(
    opening: Opening,
    payload: bytes,
    known: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(0)
    told = ""
    async with opening(request) as sink:
        try:
            outcomes = await published(sink, [new_message("Loan/1", payload, TOPIC, mark=CANARY)])
        except SinkUnavailable as error:
            told = shown(error, caplog)
        else:
            told = f"{outcomes} {shown(None, caplog)}"
    assert known in told
    assert CANARY not in told


async def test_the_password_of_a_proxy_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    # A slash that is not encoded ends the host, and the SDK quotes the URL.
    for name, value in (CREDENTIALS | {"HTTPS_PROXY": "http://joe:canary/@127.0.0.1:9"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SinkUnavailable, match="HTTPClientError") as raised:
        async with open_sink("sqs://events?region=eu-west-1"):
            pass
    assert CANARY not in shown(raised.value, caplog)


@pytest.mark.parametrize("kind", [ChannelAccessRefused, ChannelPreconditionFailed])
def test_rabbitmq_shows_no_payload(kind: Any) -> None:
    outcome = outcome_of_closing(kind(f"PRECONDITION_FAILED - {QUOTE}"))
    assert "PRECONDITION_FAILED" in str(outcome)
    assert CANARY not in str(outcome)


@pytest.mark.parametrize("name", ["INVALID_RECORD", "POLICY_VIOLATION", "UNKNOWN", "_TRANSPORT"])
def test_kafka_shows_no_text_of_a_report(name: str) -> None:
    """librdkafka gives a producer none today, although the protocol has one for each record."""
    error = KafkaError(getattr(KafkaError, name), QUOTE)
    answers = Answers(1)
    reports = Reports([new_message()], answers, Heard(), [])
    reports.report_alone(0, error, None)
    reports.blame_topics(1)
    told = f"{answers.outcomes} {reports.reason}"
    assert KafkaError(error.code()).str() in told
    assert CANARY not in told
