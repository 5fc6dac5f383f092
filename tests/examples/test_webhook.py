"""examples/webhook: the contract suite on an endpoint that verifies what it gets."""

import base64
import hmac
import time
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from tests.support.brokers.broker_faults import losing_answers
from tests.support.brokers.proxied_broker import ProxiedBroker
from tests.support.checkout import ROOT
from tests.support.proxy.tcp_proxy import TcpProxy
from tests.support.publisher.running_relays import event, running, until
from tests.support.stand_ins import StandIn

from dsql_outbox.outbox import Database, SinkUnavailable
from dsql_outbox.publisher import (
    Deferred,
    Delivered,
    Publisher,
    Rejected,
    Retry,
    Sink,
    Unavailable,
)
from dsql_outbox.publisher.sinks import attributes
from dsql_outbox.testing.sink_contract import (
    OpenStage,
    SinkContract,
    Stored,
    new_message,
    published,
)
from dsql_outbox.writer import Writer

KEY = b"a key of twenty-four byt"
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Endpoint(ProxiedBroker):
    """A partner: it verifies each request, and answers as it is told."""

    url = ""
    many = 100

    def __init__(self, server: StandIn, proxy: TcpProxy) -> None:
        self.proxy = proxy
        self.arrived: list[Stored] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.busy: set[str] = set()
        """The subjects whose messages are answered 503."""
        self.turned_away: set[str] = set()
        server.RequestHandlerClass.endpoint = self  # type: ignore[attr-defined]

    def open(self, timeout: float = 3.0) -> AbstractAsyncContextManager[Sink]:
        from webhook_sink import open_webhook  # noqa: PLC0415 - its folder is put on the path

        assert self.proxy is not None
        found: AbstractAsyncContextManager[Sink] = open_webhook(
            f"http://127.0.0.1:{self.proxy.port}/events", SECRET, timeout
        )
        return found

    async def stored(self) -> list[Stored]:
        return self.arrived

    def take(self, headers: Any, body: bytes) -> tuple[int, dict[str, str]]:
        """Verify a request as Standard Webhooks says, and keep it if it is to be answered 2xx."""
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
        if headers["webhook-signature"] != f"v1,{digest}":
            return 401, {}
        if abs(time.time() - int(headers["webhook-timestamp"])) > 300:
            return 401, {}
        own = attributes(dict(headers.items()), "ce-")
        if own["subject"] in self.busy:
            self.turned_away.add(own["subject"])
            return 503, {}
        status, more = self.answers.pop(0) if self.answers else (204, {})
        if status < 300:
            own["datacontenttype"] = headers["content-type"]
            self.arrived.append(Stored(headers["topic"], own, body))
        return status, more


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    endpoint: Endpoint

    def do_HEAD(self) -> None:
        self._answer(405, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._answer(*self.endpoint.take(self.headers, body))

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of http.server
        """Write nothing."""


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples/webhook"))


@pytest.fixture
def broker() -> Generator[Endpoint]:
    """An endpoint that has got nothing yet."""
    with StandIn(Handler).serving() as server, TcpProxy("127.0.0.1", server.server_port) as proxy:
        yield Endpoint(server, proxy)


class TestWebhookSink(SinkContract):
    """The suite, as another package runs it."""

    @pytest.fixture
    def open_stage(self, broker: Endpoint) -> OpenStage:
        assert broker.proxy is not None
        return partial(losing_answers, broker, broker.proxy, across_topics=False)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_a_fault_of_the_message_rejects_it(broker: Endpoint, status: int) -> None:
    broker.answers = [(status, {})]
    async with broker.open() as sink:
        assert await published(sink, [new_message()]) == [
            Rejected(f"the endpoint answered {status}")
        ]


@pytest.mark.anyio
@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
async def test_an_answer_that_may_be_about_one_request_defers_it_alone(
    broker: Endpoint, status: int
) -> None:
    broker.answers = [(status, {})]
    async with broker.open() as sink:
        outcomes = await published(sink, [new_message(f"Loan/{n}") for n in range(2)])
    assert sorted(outcomes, key=repr) == [Deferred(f"the endpoint answered {status}"), Delivered()]


@pytest.mark.anyio
async def test_a_failure_in_the_endpoint_is_tried_again_and_counts(broker: Endpoint) -> None:
    broker.answers = [(500, {})]
    async with broker.open() as sink:
        assert await published(sink, [new_message()]) == [Retry("the endpoint answered 500")]


@pytest.mark.anyio
async def test_no_answer_in_time_defers_the_message(broker: Endpoint) -> None:
    assert broker.proxy is not None
    async with broker.open(timeout=0.5) as sink:
        with broker.proxy.swallow_server():
            outcomes = await published(sink, [new_message()])
    assert outcomes == [Deferred("the endpoint gave no answer in 0.5 s")]


@pytest.mark.anyio
async def test_3_percent_that_are_answered_503_hold_up_no_other_message(
    broker: Endpoint, outbox_url: str
) -> None:
    """The three come first, so that a pause of their topic would stop the 97 for good."""
    database = Database(outbox_url)
    events = [event(f"car-{n}") for n in range(100)]
    busy = {f"Car/car-{n}" for n in range(3)}
    broker.busy |= busy
    with Writer(database) as writer:
        writer.write_many(events[:3])
        async with running(Publisher(database, broker.open)):
            await until(lambda: broker.turned_away == busy)
            writer.write_many(events[3:])
            await until(lambda: len(broker.arrived) == 97, 30.0)
            broker.busy.clear()
            await until(lambda: len(broker.arrived) == 100)
    assert {each.event_id for each in broker.arrived} == {each.id for each in events}


@pytest.mark.anyio
@pytest.mark.parametrize("status", [301, 401, 404, 410])
async def test_any_other_answer_pauses_its_topic(broker: Endpoint, status: int) -> None:
    broker.answers = [(status, {"location": "/elsewhere"})]
    async with broker.open() as sink:
        assert await published(sink, [new_message()]) == [
            Unavailable(f"the endpoint answered {status}")
        ]
    assert broker.arrived == []


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_nothing_is_posted_before_the_time_that_the_endpoint_names(
    broker: Endpoint, form: str
) -> None:
    later = {
        "seconds": "60",
        "date": format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True),
    }[form]
    broker.answers = [(429, {"retry-after": later})]
    async with broker.open() as sink:
        await published(sink, [new_message()])
        with pytest.raises(SinkUnavailable, match=r"asked to come back in (59|60) s"):
            await published(sink, [new_message()])
    assert broker.arrived == []


@pytest.mark.anyio
async def test_a_time_that_is_none_is_no_pause(broker: Endpoint) -> None:
    broker.answers = [(503, {"retry-after": "soon"})]
    async with broker.open() as sink:
        await published(sink, [new_message()])
        await published(sink, [new_message()])
    assert len(broker.arrived) == 1


@pytest.mark.anyio
async def test_a_wrong_signature_is_seen(broker: Endpoint) -> None:
    """The check of this test's own endpoint."""
    from webhook_sink import open_webhook  # noqa: PLC0415 - its folder is put on the path

    assert broker.proxy is not None
    other = "whsec_" + base64.b64encode(b"another key, as long as").decode()
    async with open_webhook(f"http://127.0.0.1:{broker.proxy.port}", other, 1.0) as sink:
        assert await published(sink, [new_message()]) == [Unavailable("the endpoint answered 401")]
