"""How the NATS sink proves who it is, whom it trusts, and what it may not do."""

from pathlib import Path
from typing import Final

import nkeys
import pytest
from tests.support.brokers.certificates import Authority
from tests.support.brokers.nats_cluster import custom_server, refusing_server

from dsql_outbox.outbox import SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, Unavailable
from dsql_outbox.testing.sink_contract import new_message, published

pytestmark = pytest.mark.anyio

STREAM: Final = "stream=EVENTS&timeout=2"
BOTH: Final = "stream=EVENTS&subjects=events.>,Secret.>"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Signs the certificates of this test."""
    return Authority(tmp_path)


def tls_settings(authority: Authority, *, verify: bool = False) -> str:
    """The settings of a server that speaks TLS, and perhaps demands a certificate."""
    server = authority.sign("server")
    return (
        f'tls {{ cert_file: "{server.cert}", key_file: "{server.key}", '
        f'ca_file: "{authority.cert}", verify: {str(verify).lower()} }}\n'
    )


async def test_the_authority_of_the_url_is_trusted_and_no_other(
    tmp_path: Path, authority: Authority
) -> None:
    with custom_server(tmp_path, "-js", settings=tls_settings(authority)) as host:
        async with open_sink(f"tls://{host}?{STREAM}&ca={authority.cert}") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]

        with pytest.raises(SettingsError, match=r"certificate verify failed.*ca=FILE"):
            async with open_sink(f"tls://{host}?timeout=0.5"):
                pass


async def test_a_certificate_of_the_client_is_shown_to_a_server_that_demands_one(
    tmp_path: Path, authority: Authority
) -> None:
    client = authority.sign("client")
    settings = tls_settings(authority, verify=True)

    with custom_server(tmp_path, "-js", settings=settings) as host:
        url = f"tls://{host}?{STREAM}&ca={authority.cert}"
        async with open_sink(f"{url}&cert={client.cert}&key={client.key}") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]

        with pytest.raises(SinkUnavailable):
            async with open_sink(f"tls://{host}?timeout=0.5&ca={authority.cert}"):
                pass


async def test_an_nkey_is_used_and_another_one_is_refused(tmp_path: Path) -> None:
    keys = {name: tmp_path / f"{name}.nk" for name in ("known", "other")}
    for n, file in enumerate(keys.values()):
        seed = nkeys.encode_seed(bytes([n]) * 32, nkeys.PREFIX_BYTE_USER)
        file.write_bytes(bytes(seed) + b"\n")
    public = nkeys.from_seed(bytearray(keys["known"].read_bytes().strip())).public_key.decode()
    settings = f"authorization {{ users: [ {{ nkey: {public} }} ] }}\n"

    with custom_server(tmp_path, "-js", settings=settings) as host:
        async with open_sink(f"nats://{host}?{STREAM}&nkey={keys['known']}") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]

        with pytest.raises(SinkUnavailable, match=r"Authorization Violation"):
            async with open_sink(f"nats://{host}?timeout=0.5&nkey={keys['other']}"):
                pass


async def test_a_subject_without_the_right_to_publish_is_unavailable_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with refusing_server(tmp_path) as url:
        async with open_sink(f"{url}?{BOTH}&timeout=30") as sink:
            messages = [new_message(topic="Secret.X"), new_message("Loan/2")]
            denied, good = await published(sink, messages)

    assert denied == Unavailable("this client may not publish to Secret.X: permissions violation")
    assert good == Delivered()
    assert not caplog.records


async def test_refused_messages_hold_back_no_others(tmp_path: Path) -> None:
    """More of them than may be on their way at a time."""
    with refusing_server(tmp_path) as url:
        async with open_sink(f"{url}?{BOTH}&timeout=3") as sink:
            secret = [new_message(f"Loan/{n}", topic="Secret.X") for n in range(300)]
            *denied, good = await published(sink, [*secret, new_message("Loan/good")])

    assert {type(each) for each in denied} == {Unavailable}
    assert good == Delivered()
