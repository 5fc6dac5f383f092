"""Logins of Kafka with tokens, and TLS with a certificate of the client's own."""

import asyncio
import base64
import socketserver
import ssl
import time
from collections.abc import Generator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from tests.support.brokers.certificates import Authority
from tests.support.brokers.kafka_login import TokenListener
from tests.support.brokers.kafka_mock import MockKafka
from tests.support.brokers.kafka_reader import read_all
from tests.support.stand_ins import StandIn

from dsql_outbox.outbox import SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered
from dsql_outbox.testing.sink_contract import new_message, published

pytestmark = pytest.mark.anyio

SECRET = "the secret key of a test"
REGION = "eu-west-1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs the listener's certificate."""
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> ssl.SSLContext:
    """That of the listener."""
    server = authority.sign("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.cert, server.key)
    return context


def is_signed_by_us(token: str) -> bool:
    """Whether a token of MSK is a request that AWS would take: signed, fresh, for this action."""
    url = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    found = {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}
    at = time.strptime(found["X-Amz-Date"], "%Y%m%dT%H%M%SZ")
    request = AWSRequest(
        "GET", f"https://kafka.{REGION}.amazonaws.com/?Action=kafka-cluster%3AConnect"
    )
    signer = SigV4QueryAuth(Credentials("AKIDTEST", SECRET), "kafka-cluster", REGION, 900)
    request.context["timestamp"] = found["X-Amz-Date"]
    signer._modify_request_before_signing(request)
    wanted = signer.signature(
        signer.string_to_sign(request, signer.canonical_request(request)), request
    )
    return (
        found["Action"] == "kafka-cluster:Connect"
        and found["X-Amz-Signature"] == wanted
        and abs(time.mktime(at) - time.mktime(time.gmtime())) < 300
    )


@pytest.fixture
def listener(kafka_mock: MockKafka, tls: ssl.SSLContext) -> Generator[TokenListener]:
    """A broker that takes tokens of MSK."""
    with TokenListener(kafka_mock, tls, is_signed_by_us).serving() as listener:
        yield listener


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


def url(listener: TokenListener, authority: Authority, more: str) -> str:
    return f"kafka://127.0.0.1:{listener.server_port}?ca={authority.cert}&{more}"


async def test_msk_takes_the_login_of_the_aws_sdk(
    listener: TokenListener, authority: Authority, kafka_mock: MockKafka
) -> None:
    async with open_sink(url(listener, authority, f"token=msk&region={REGION}")) as sink:
        assert await published(sink, [new_message()]) == [Delivered()]
    assert len(read_all(kafka_mock.bootstrap)) == 1
    assert listener.tokens


async def test_a_token_that_the_broker_refuses_is_the_reason(
    listener: TokenListener, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    place = url(listener, authority, f"token=msk&region={REGION}&timeout=2")
    with pytest.raises(SinkUnavailable, match="SASL authentication error") as raised:
        async with open_sink(place):
            pass
    assert listener.tokens[0] not in str(raised.value)


async def test_missing_credentials_are_the_reason(
    listener: TokenListener,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(SinkUnavailable, match="no token for the login"):
        async with open_sink(url(listener, authority, f"token=msk&region={REGION}")):
            pass
    assert listener.tokens == []


async def test_oidc_is_configured_by_a_file(
    kafka_mock: MockKafka, tls: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    part = base64.urlsafe_b64encode
    claims = f'{{"sub": "outbox", "iat": {int(time.time())}, "exp": {int(time.time()) + 300}}}'
    jwt = ".".join(
        (part(b'{"alg":"none"}').decode(), part(claims.encode()).decode(), "c2ln")
    ).replace("=", "")

    class Issuer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = f'{{"access_token": "{jwt}", "token_type": "Bearer"}}'.encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
            """Write nothing."""

    config = tmp_path / "client.properties"
    with (
        StandIn(Issuer).serving() as issuer,
        TokenListener(kafka_mock, tls, jwt.__eq__).serving() as listener,
    ):
        config.write_text(
            "security.protocol=sasl_ssl\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.method=oidc\n"
            f"sasl.oauthbearer.token.endpoint.url=http://127.0.0.1:{issuer.server_port}/token\n"
            f"sasl.oauthbearer.client.id=outbox\nsasl.oauthbearer.client.secret=hush\n"
            f"ssl.ca.location={authority.cert}\n"
        )
        async with open_sink(f"kafka://127.0.0.1:{listener.server_port}?config={config}") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]
        assert set(listener.tokens) == {jwt}


async def test_a_password_that_changes_is_read_again_by_the_producers_that_are_open(
    kafka_mock: MockKafka, tls: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    """The broker takes both for a while, so no call fails, and no producer is made anew."""
    file = tmp_path / "password"
    file.write_text("first\n")
    with TokenListener(kafka_mock, tls, {"first", "second"}.__contains__, "PLAIN").serving() as at:
        place = f"kafka://outbox@127.0.0.1:{at.server_port}?tls=yes&ca={authority.cert}"
        async with open_sink(f"{place}&password_file={file}") as sink:

            async def passwords() -> set[str]:
                """Those of the next logins, after all connections are lost."""
                at.hang_up()
                at.tokens.clear()
                # The last three are a run, which has a producer of its own.
                messages = [new_message("Car/1"), *(new_message("Car/2") for _ in range(3))]
                assert await published(sink, messages) == [Delivered()] * 4
                return set(at.tokens)

            assert await passwords() == {"first"}
            file.write_text("second\n")
            async with asyncio.timeout(30):
                while await passwords() != {"second"}:
                    pass


async def test_a_wrong_password_in_a_file_is_the_reason_and_stays_secret(
    kafka_mock: MockKafka, tls: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("mistaken\n")
    with TokenListener(kafka_mock, tls, "right".__eq__, "PLAIN").serving() as at:
        place = f"kafka://outbox@127.0.0.1:{at.server_port}?tls=yes&ca={authority.cert}&timeout=2"
        with pytest.raises(SinkUnavailable, match="SASL authentication error") as raised:
            async with open_sink(f"{place}&password_file={file}"):
                pass
    assert at.tokens[0] == "mistaken"
    assert "mistaken" not in str(raised.value)


class _FirstBytes(socketserver.BaseRequestHandler):
    """Notes what a client says first, and hangs up."""

    server: "_Eavesdropper"

    def handle(self) -> None:
        self.request.settimeout(5)
        with suppress(OSError):
            self.server.heard.append(self.request.recv(4096))


class _Eavesdropper(StandIn):
    def __init__(self) -> None:
        super().__init__(_FirstBytes)
        self.heard: list[bytes] = []


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
@pytest.mark.parametrize("login", ["in the url", "in a file"])
async def test_a_login_in_the_url_keeps_the_tls_of_the_config_file(
    tmp_path: Path, mechanism: str, login: str
) -> None:
    password, config = tmp_path / "password", tmp_path / "client.properties"
    password.write_text("hush\n")
    config.write_text(f"security.protocol=SASL_SSL\nsasl.mechanism={mechanism}\n")
    user, more = (
        ("joe:hush", "") if login == "in the url" else ("joe", f"&password_file={password}")
    )
    with _Eavesdropper().serving() as listener:
        place = f"kafka://{user}@127.0.0.1:{listener.server_port}?config={config}&timeout=1{more}"
        with pytest.raises(SinkUnavailable):
            async with open_sink(place):
                pass

    assert listener.heard
    assert {said[:2] for said in listener.heard if said} == {b"\x16\x03"}  # a handshake of TLS


@pytest.mark.parametrize("tls_too", [True, False])
async def test_a_login_in_the_url_and_the_tls_of_the_config_file_are_one_login(
    kafka_mock: MockKafka,
    tls: ssl.SSLContext,
    authority: Authority,
    tmp_path: Path,
    *,
    tls_too: bool,
) -> None:
    config = tmp_path / "client.properties"
    config.write_text(f"security.protocol=SASL_SSL\nssl.ca.location={authority.cert}\n")
    with TokenListener(kafka_mock, tls, "hush".__eq__, "PLAIN").serving() as at:
        place = f"kafka://outbox:hush@127.0.0.1:{at.server_port}?config={config}"
        async with open_sink(f"{place}{'&tls=yes' if tls_too else ''}") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]
    assert set(at.tokens) == {"hush"}


async def test_tls_in_the_url_keeps_the_login_of_the_config_file(
    kafka_mock: MockKafka, tls: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    config = tmp_path / "client.properties"
    config.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n"
        "sasl.username=outbox\nsasl.password=hush\n"
    )
    with TokenListener(kafka_mock, tls, "hush".__eq__, "PLAIN").serving() as at:
        place = url(at, authority, f"tls=yes&config={config}")
        async with open_sink(place) as sink:
            assert await published(sink, [new_message()]) == [Delivered()]
    assert set(at.tokens) == {"hush"}


@pytest.mark.parametrize("shows", [True, False])
async def test_a_broker_may_want_a_certificate_of_the_client(
    kafka_mock: MockKafka, tls: ssl.SSLContext, authority: Authority, *, shows: bool
) -> None:
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.cert)
    client = authority.sign("client")
    own = f"&cert={client.cert}&key={client.key}" if shows else ""
    with TokenListener(kafka_mock, tls, None).serving() as listener:
        place = url(listener, authority, f"tls=yes&timeout=3{own}")
        if shows:
            async with open_sink(place) as sink:
                assert await published(sink, [new_message()]) == [Delivered()]
        else:
            with pytest.raises(SinkUnavailable):
                async with open_sink(place):
                    pass


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("kafka://h?token=iam", "token of a Kafka URL must be msk, got 'iam'"),
        ("kafka://u:p@h?token=msk&region=eu-west-1", "leave out USER:PASSWORD@"),
        ("kafka://h?token=msk&mechanism=PLAIN&region=eu-west-1", "leave out USER:PASSWORD@"),
        ("kafka://h?token=msk&tls=no&region=eu-west-1", "needs TLS"),
        ("kafka://h?token=msk", "needs the region"),
        ("kafka://h?region=eu-west-1", "needs token=msk"),
        ("kafka://h?ca=/ca.pem", "need tls=yes"),
        ("kafka://h?password_file=/dev/null", "password_file of a Kafka URL needs USER@"),
        ("kafka://u:p@h?password_file=/dev/null", "password_file of a Kafka URL needs USER@"),
        ("kafka://u@h?password_file=/none", "password_file of a Kafka URL: cannot read /none"),
        ("kafka://h?token=msk&password_file=/dev/null", "mechanism and password_file"),
    ],
)
def test_a_url_that_contradicts_itself_is_refused(url: str, rule: str) -> None:
    with pytest.raises(SettingsError, match=rule):
        open_sink(url)


@pytest.mark.parametrize(
    "host",
    [
        "b-1.shop.abc123.c2.kafka.eu-west-1.amazonaws.com:9098",
        "boot-abc.c1.kafka-serverless.eu-west-1.amazonaws.com:9098",
    ],
)
def test_the_region_is_in_the_host(host: str) -> None:
    open_sink(f"kafka://{host}?token=msk")
