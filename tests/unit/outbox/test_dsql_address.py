"""A DSQL cluster: what its URL may be, how it signs, and that a token goes nowhere else."""

import asyncio
import logging
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import psycopg
import pytest
from dsql_core.token_manager import TokenManager

from dsql_outbox.outbox import Database, MissingExtra, SettingsError
from dsql_outbox.outbox.database import dsql_address as module
from dsql_outbox.outbox.database.connection import Connection
from dsql_outbox.outbox.database.dsql_address import DsqlAddress

HOST = "abc123.dsql.eu-central-1.on.aws"
URL = f"dsql://app@{HOST}/postgres"

PATIENCE = 10.0  # seconds until a test gives up


@pytest.fixture(autouse=True)
def aws_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAFAKEFAKEFAKEFAKE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "fake")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


@pytest.fixture
def no_keys(aws_keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    del aws_keys
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")


def token(address: DsqlAddress) -> str:
    return str(address.parameters("writer")["password"])


def signer(monkeypatch: pytest.MonkeyPatch, sign: Callable[[], str]) -> None:
    """Put `sign` where the connector asks AWS's SDK for a token."""
    monkeypatch.setattr(TokenManager, "get_token", lambda _: sign())


# The token.


@pytest.mark.parametrize(
    ("role", "action"), [("admin", "DbConnectAdmin"), ("app", "DbConnect"), ("Admin", "DbConnect")]
)
def test_the_password_is_a_signed_request_for_the_role_cluster_and_region(
    role: str, action: str
) -> None:
    request = urlsplit(f"https://{token(DsqlAddress(f'dsql://{role}@{HOST}/postgres'))}")
    query = parse_qs(request.query)
    assert request.netloc == HOST
    assert query["Action"] == [action]
    assert "/eu-central-1/dsql/aws4_request" in query["X-Amz-Credential"][0]
    assert query["X-Amz-Expires"] == ["300"]
    assert len(query["X-Amz-Signature"][0]) == 64


def test_a_token_is_used_again_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1_000_000.0)
    count = iter(range(100))
    monkeypatch.setattr(module, "time", lambda: clock.now)
    signer(monkeypatch, lambda: f"token {next(count)}")
    address, found = DsqlAddress(URL), list[str]()
    for now in (1_000_000.0, 1_000_059.9, 1_000_060.0, 1_000_100.0, 900_000.0):
        clock.now = now
        found.append(token(address))
    assert found == ["token 0", "token 0", "token 1", "token 1", "token 2"]


def test_parallel_first_signings_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    signing = threading.Semaphore(1)

    def sign() -> str:
        assert signing.acquire(blocking=False), "two signings at once"
        return "token"  # never released: one signing only

    signer(monkeypatch, sign)
    address = DsqlAddress(URL)
    start = threading.Barrier(8)

    def first(_: int) -> str:
        start.wait(PATIENCE)
        return token(address)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(first, range(8))) == {"token"}


@pytest.mark.anyio
async def test_the_event_loop_runs_on_while_a_token_is_signed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, go = asyncio.Event(), threading.Event()
    loop, threads = asyncio.get_running_loop(), set[int]()

    def sign() -> str:
        threads.add(threading.get_ident())
        loop.call_soon_threadsafe(started.set)
        assert go.wait(PATIENCE), "the event loop stood still"
        return "token"

    signer(monkeypatch, sign)
    task = asyncio.create_task(DsqlAddress(URL).parameters_async("writer"))
    with anyio.fail_after(PATIENCE):
        await started.wait()
        go.set()
        assert (await task)["password"] == "token"
    assert threading.get_ident() not in threads


@pytest.mark.anyio
async def test_a_cancelled_caller_does_not_wait_for_the_signing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, go, signed = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def sign() -> str:
        loop.call_soon_threadsafe(started.set)
        go.wait(PATIENCE)
        signed.set()
        return "token"

    signer(monkeypatch, sign)
    async with anyio.create_task_group() as group:
        group.start_soon(DsqlAddress(URL).parameters_async, "writer")
        await started.wait()
        group.cancel_scope.cancel()
    assert not signed.is_set()
    go.set()


@pytest.mark.usefixtures("no_keys")
def test_missing_credentials_are_a_failure_to_connect() -> None:
    database = Database(URL)
    with pytest.raises(psycopg.OperationalError) as caught:
        database.connect()
    text = f"no IAM token could be signed for {HOST}/postgres: NoCredentialsError"
    assert str(caught.value) == text


# The other parameters.


def test_the_url_gives_role_host_and_database() -> None:
    found = DsqlAddress(f"dsql://my%40app@{HOST.upper()}:6432/postgres").parameters("writer")
    assert (found["user"], found["host"], found["port"]) == ("my@app", HOST, 6432)
    assert found["dbname"] == "postgres"


@pytest.mark.parametrize("url", [f"dsql://app@{HOST}", f"dsql://app@{HOST}/"])
def test_port_and_database_have_defaults(url: str) -> None:
    found = DsqlAddress(url).parameters("writer")
    assert (found["port"], found["dbname"]) == (5432, "postgres")


def test_a_private_link_endpoint_is_a_cluster_too() -> None:
    host = "abc123.dsql-fnh4.us-east-1.on.aws"
    address = DsqlAddress(f"dsql://app@{host}/postgres")
    assert "us-east-1" in token(address)
    assert address.parameters("writer")["host"] == host


def test_tls_is_verified_and_the_client_is_named() -> None:
    found = DsqlAddress(URL).parameters("writer")
    assert found["sslmode"] == "verify-full"
    assert found["sslnegotiation"] == "direct"
    assert found["tcp_user_timeout"] == 10_000
    assert found["keepalives_idle"] == 10
    assert str(found["application_name"]).startswith(
        "dsql-outbox writer:aurora-dsql-python-psycopg/"
    )


def test_sessions_with_one_token_have_their_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    address = DsqlAddress(URL)
    writer, publisher = (address.parameters(part) for part in ("writer", "publisher"))
    assert writer["password"] == publisher["password"]
    assert str(publisher["application_name"]).startswith("dsql-outbox publisher:aurora-dsql-")
    monkeypatch.setenv("PGAPPNAME", "shop")
    names = str(DsqlAddress(URL).parameters("writer")["application_name"])
    assert names.startswith("shop:aurora-dsql-")


def test_direct_tls_needs_libpq_17(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.pq, "version", lambda: 160_000)
    assert "sslnegotiation" not in DsqlAddress(URL).parameters("writer")


def test_libpq_takes_every_parameter() -> None:
    psycopg.conninfo.make_conninfo(**DsqlAddress(URL).parameters("writer"))


def test_the_roots_are_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile="/etc/roots.pem")
    )
    assert DsqlAddress(URL).parameters("writer")["sslrootcert"] == "/etc/roots.pem"


def test_without_a_file_of_the_system_the_roots_are_those_of_the_aws_sdk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=None))
    roots = DsqlAddress(URL).parameters("writer")["sslrootcert"]
    assert ssl.create_default_context(cafile=str(roots)).get_ca_certs()


def test_the_first_thing_sent_is_tls_for_the_cluster_and_no_token() -> None:
    address = DsqlAddress(URL)
    received = list[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                received.append(connection.recv(65_536))

        thread = threading.Thread(target=serve)
        thread.start()
        here: dict[str, Any] = {"hostaddr": "127.0.0.1", "port": server.getsockname()[1]}
        with pytest.raises(psycopg.OperationalError) as caught:
            Connection.connect(**address.parameters("writer") | here)
        thread.join(PATIENCE)
    (first,) = received
    assert first.startswith(b"\x16\x03"), "no TLS handshake"
    assert HOST.encode() in first
    assert b"X-Amz" not in first
    assert "X-Amz" not in "".join(traceback.format_exception(caught.value))


# Refusals, secrecy, and what is not imported.


@pytest.mark.parametrize(
    "url",
    [
        f"dsql://{HOST}/postgres",
        f"dsql://@{HOST}/postgres",
        f"dsql://app:s3cret@{HOST}/postgres",
        f"dsql://app:@{HOST}/postgres",
        f"dsql://app@{HOST}:port/postgres",
        f"dsql://app@{HOST}/postgres/more",
        f"dsql://app@{HOST}/postgres?sslmode=disable",
        f"dsql://app@{HOST}.evil.example/postgres",
        "dsql://app@abc123",
        "dsql://app@localhost/postgres",
        "dsql://app@dsql.eu-central-1.on.aws/postgres",
        "dsql://app@abc.rds.eu-central-1.on.aws/postgres",
        "dsql://app@abc.dsqlite.eu-central-1.on.aws/postgres",
        "dsql://app@abc.dsql.on.aws/postgres",
        "dsql:app",
        f"dsql://app@{HOST}\n",
    ],
)
def test_another_url_is_refused_with_the_form_that_is_wanted(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Database(url)
    assert str(caught.value) == (
        "the URL of a DSQL database has the form "
        "dsql://role@cluster.dsql.region.on.aws[:port]/postgres, and no password: IAM signs one"
    )


@pytest.mark.parametrize(
    "host",
    [
        "vpce-0123456789abcdef0-abcdefgh.dsql-fnh4.us-east-1.vpce.amazonaws.com",
        "vpce-0123456789abcdef0-abcdefgh-us-east-1a.dsql-fnh4.us-east-1.VPCE.amazonaws.com:5432",
    ],
)
def test_the_name_of_a_vpc_endpoint_is_refused_with_the_name_to_use(host: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Database(f"dsql://app:s3cret@{host}/postgres")
    assert "does not tell which cluster is meant, which TLS must send (SNI)" in str(caught.value)
    assert "dsql://role@cluster.dsql-SUFFIX.region.on.aws/postgres" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_without_the_connector_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dsql_core", None)
    with pytest.raises(MissingExtra) as caught:
        Database(URL)
    assert str(caught.value).startswith("a dsql:// database needs the extra [dsql]: pip install ")


def test_a_token_is_in_no_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    database = Database(URL)
    signature = database._address.parameters("writer")["password"]
    told = f"{database!r} {database._address} {database._address!r} {caplog.text}"
    assert str(database._address) == f"{HOST}/postgres"
    assert "X-Amz" not in told
    assert str(signature) not in told


def test_boto3_is_not_imported_before_the_first_token() -> None:
    code = f"""
import sys
from dsql_outbox.outbox import Database
database = Database({URL!r})
assert not {{"boto3", "botocore"}} & set(sys.modules), "too early"
database._address.parameters("writer")
assert "boto3" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
