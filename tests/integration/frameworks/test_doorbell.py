"""The doorbell of the relay's function, at moto's Lambda and at an endpoint that is silent."""

import io
import json
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4
from zipfile import ZipFile

import boto3
import pytest
from moto import mock_aws
from tests.support.brokers.sqs_server import CREDENTIALS
from tests.support.stand_ins import StandIn
from tests.support.writer.written_events import event

from dsql_outbox import Database, DuplicateEvent, MissingExtra, SettingsError, Writer
from dsql_outbox.aws_lambda import Doorbell
from dsql_outbox.observability.facts import WriteEnded

FUNCTION = "shop-relay"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (CREDENTIALS | {"AWS_DEFAULT_REGION": "eu-west-1"}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def invocations() -> Iterator[list[Any]]:
    """Requests to moto's Lambda, which has one function."""
    with mock_aws(config={"lambda": {"use_docker": False}}):
        made = io.BytesIO()
        with ZipFile(made, "w") as zipped:
            zipped.writestr("relay.py", "")
        role = boto3.client("iam").create_role(RoleName="relay", AssumeRolePolicyDocument="{}")
        boto3.client("lambda").create_function(
            FunctionName=FUNCTION,
            Runtime="python3.13",
            Role=role["Role"]["Arn"],
            Handler="relay.handler",
            Code={"ZipFile": made.getvalue()},
        )
        found: list[Any] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(boto3.session, "Session", watched_session(found))
            yield found


def watched_session(found: list[Any]) -> Any:
    real = boto3.session.Session

    def session() -> Any:
        made = real()
        made.events.register(
            "before-send.lambda.Invoke", lambda request, **_: found.append(request)
        )
        return made

    return session


def test_a_commit_rings_once_by_an_asynchronous_invocation(
    url: str, invocations: list[Any]
) -> None:
    bell = Doorbell(FUNCTION)
    assert not bell.ring(), "nothing was written"
    with Writer(Database(url), hooks=[bell]) as writer:
        writer.write(one := event("car-1"))
        writer.write(event("car-2"))
        assert bell.ring()
        assert not bell.ring()
        with pytest.raises(DuplicateEvent):
            writer.write(one.replace(b'"n"', b'"m"'))
        assert not bell.ring(), "nothing was stored"
        writer.transact(lambda transaction: transaction.append(event("car-3")))
        assert bell.ring()
    assert [request.url.partition("/2015")[2] for request in invocations] == [
        f"-03-31/functions/{FUNCTION}/invocations"
    ] * 2
    assert {request.headers["X-Amz-Invocation-Type"] for request in invocations} == {b"Event"}


def test_a_relay_that_cannot_be_rung_is_a_warning_and_rung_again(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", endpoint)
        bell = Doorbell(FUNCTION, timeout=0.4)
        with Writer(Database(url), hooks=[bell]) as writer:
            writer.write(event("car-1"))
        assert not bell.ring()
        silent.accept()[0].close()
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()  # it was tried once
    assert "Cannot ring the relay shop-relay: ReadTimeoutError" in caplog.text
    assert not bell.ring()
    assert "Cannot ring the relay shop-relay: EndpointConnectionError" in caplog.text


class Refusing(BaseHTTPRequestHandler):
    """Repeats the request in its refusal, as AWS does for a wrong signature."""

    def do_POST(self) -> None:
        body = json.dumps({"Message": f"The canonical request is {self.headers}"}).encode()
        self.send_response(403)
        self.send_header("x-amzn-ErrorType", "InvalidSignatureException")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        pass


def test_a_refused_ring_shows_no_token(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0, "dsql_outbox")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "canary")
    with StandIn(Refusing).serving() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", f"http://127.0.0.1:{server.server_port}")
        bell = Doorbell(FUNCTION)
        bell(WriteEnded(uuid4(), "committed", 1, 0))
        assert not bell.ring()
    assert "Cannot ring the relay shop-relay: ClientError" in caplog.text
    assert "canary" not in caplog.text + str([vars(each) for each in caplog.records])


def test_without_a_region_or_a_name_or_boto3_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingsError, match=r"Doorbell\.function must not be empty"):
        Doorbell("")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(SettingsError, match="the region is not known"):
        Doorbell(FUNCTION)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r"Doorbell needs the extra \[lambda\]"):
        Doorbell(FUNCTION)
