"""A NATS server that goes and comes back, and getting to one at all."""

from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import pytest
from tests.support.brokers.nats_cluster import custom_server
from tests.support.brokers.readable_brokers import NatsBroker
from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.brokers.nats import client as nats_client
from dsql_outbox.brokers.nats import open_nats
from dsql_outbox.outbox import SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted
from dsql_outbox.testing import NatsServer
from dsql_outbox.testing.sink_contract import Before, deliver, in_order, new_message, published

pytestmark = pytest.mark.anyio


# --- a server that goes ----------------------------------------------------------------


async def test_a_server_killed_between_waves_is_unavailable_and_then_gets_the_rest(
    nats_server: NatsServer, nats_broker: NatsBroker
) -> None:
    messages = [new_message(key=f"Loan/{n % 2}") for n in range(10)]

    async with nats_broker.open() as inner:
        sink = Before(inner, messages[5].event_id, nats_server.kill)
        waves = await in_order(sink, messages)
        assert isinstance(waves.unavailable, SinkUnavailable)
        assert waves.outcomes == [Delivered()] * 4 + [NotAttempted()] * 6

        with pytest.raises(SinkUnavailable, match=r"connection lost|Connect call failed"):
            await published(sink, messages[4:5])

        nats_server.start()
        await deliver(sink, messages[4:])

    arrived = [stored.event_id for stored in await nats_broker.stored()]
    assert arrived == [message.event_id for message in messages]


def through(proxy: TcpProxy, server: NatsServer) -> str:
    token = server.url.partition("@")[0]
    return f"{token}@127.0.0.1:{proxy.port}"


async def test_a_server_killed_with_messages_on_their_way_is_known_at_once(
    nats_server: NatsServer, nats_proxy: TcpProxy
) -> None:
    raised: list[SinkUnavailable] = []

    async with open_sink(f"{through(nats_proxy, nats_server)}?stream=EVENTS&timeout=30") as sink:

        async def publish() -> None:
            with pytest.raises(SinkUnavailable) as caught:
                await published(sink, [new_message()])
            raised.append(caught.value)

        with nats_proxy.swallow_server(), anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish)
                await anyio.wait_all_tasks_blocked()
                nats_server.kill()

    assert len(raised) == 1


async def test_a_server_that_is_silent_counts_as_gone_before_its_messages_time_out(
    nats_server: NatsServer, nats_proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_client, "_LOST_PINGS", 1)  # a third of the timeout is between the two
    async with open_sink(f"{through(nats_proxy, nats_server)}?stream=EVENTS&timeout=4") as sink:
        with nats_proxy.swallow_server(), pytest.raises(SinkUnavailable):
            await published(sink, [new_message()])

        nats_proxy.cut_all()
        await deliver(sink, [new_message()])


async def test_a_connection_that_the_server_ended_for_good_is_opened_again(
    nats_server: NatsServer,
) -> None:
    async with open_sink(f"{nats_server.url}?stream=EVENTS") as sink:
        client: Any = vars(sink)["_connection"]._client
        client._transport.write(b"NONSENSE\r\n")
        with anyio.fail_after(5):
            while not client.is_closed:  # noqa: ASYNC110 - nats-py has no event for it
                await anyio.sleep(0.005)

        assert await published(sink, [new_message()]) == [Delivered()]


# nats-py leaves the stream of a refused login to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*StreamWriter:pytest.PytestUnraisableExceptionWarning")
async def test_a_token_that_has_changed_is_read_again_for_the_next_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server has the new one first, so that a login is refused before the file has it."""
    caplog.set_level("DEBUG", "dsql_outbox")
    file, streams = tmp_path / "token", tmp_path / "streams"
    file.write_text("the-old-one\n")
    with NatsServer(streams, token="the-old-one") as server:
        port = urlsplit(server.url).port or 0
        url = f"nats://127.0.0.1:{port}?stream=EVENTS&token_file={file}&timeout=30"
        async with AsyncExitStack() as stack:
            sink = await stack.enter_async_context(open_sink(url))
            assert await published(sink, [new_message()]) == [Delivered()]
            server.stop()
            stack.enter_context(NatsServer(streams, port=port, token="the-new-one"))
            with anyio.fail_after(30):
                while "authorization" not in caplog.text.lower():  # noqa: ASYNC110 - a log line
                    await anyio.sleep(0.05)
            file.write_text("the-new-one\n")
            await deliver(sink, [new_message()])
    assert "the-old-one" not in caplog.text
    assert "the-new-one" not in caplog.text


async def test_a_call_without_messages_asks_whether_the_server_is_there(
    nats_server: NatsServer,
) -> None:
    async with open_sink(f"{nats_server.url}?stream=EVENTS") as sink:
        assert await published(sink, []) == []
        nats_server.kill()
        with anyio.fail_after(4.5), pytest.raises(SinkUnavailable):  # and the timeout is 5 seconds
            await published(sink, [])


@pytest.mark.parametrize("reconnects", [False, True])
async def test_closing_is_quick_when_the_server_has_gone_and_ends_attempts(
    nats_server: NatsServer, reconnects: bool
) -> None:
    async with open_sink(f"{nats_server.url}?timeout=30") as sink:
        nats_server.kill()
        client: Any = vars(sink)["_connection"]._client
        with anyio.fail_after(5):
            while reconnects and not client.is_reconnecting:  # noqa: ASYNC110 - as above
                await anyio.sleep(0.005)
        started = monotonic()

    assert monotonic() - started < 10
    assert client.is_closed, "else nats-py would connect again"


# --- connecting ------------------------------------------------------------------------


async def test_no_server_is_an_unavailable_sink_that_names_the_hosts_and_no_password() -> None:
    url = "nats://joe:s3cret@127.0.0.1:1,127.0.0.1:2?timeout=0.2"

    with pytest.raises(SinkUnavailable) as caught:
        async with open_sink(url):
            pass

    assert str(caught.value).startswith("NATS at 127.0.0.1:1, 127.0.0.1:2 cannot be reached: ")
    assert "s3cret" not in repr(caught.value)


async def test_the_second_host_serves_when_the_first_is_down(nats_server: NatsServer) -> None:
    url = nats_server.url.replace("@", "@127.0.0.1:1,") + "?stream=EVENTS"

    async with open_sink(url) as sink:
        assert await published(sink, [new_message()]) == [Delivered()]


async def test_a_server_without_jetstream_is_what_the_error_says(tmp_path: Path) -> None:
    without_jetstream = pytest.raises(SinkUnavailable, match=r"has no JetStream, or it is not rea")

    with custom_server(tmp_path) as host, without_jetstream:
        async with open_sink(f"nats://{host}?stream=EVENTS"):
            pass


async def test_a_server_that_comes_up_within_the_timeout_is_waited_for(
    nats_server: NatsServer,
) -> None:
    nats_server.kill()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, nats_server.start)
        async with open_sink(f"{nats_server.url}?stream=EVENTS") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]


@pytest.mark.parametrize(
    ("options", "login"),
    [
        (("--user", "joe", "--pass", "p@ss:/w%20rd"), "joe:p%40ss%3A%2Fw%2520rd"),
        (("--auth", "t0ken/+"), "t0ken%2F%2B"),
    ],
    ids=["user and password", "token"],
)
async def test_credentials_of_the_url_are_used_and_wrong_ones_never_shown(
    tmp_path: Path, options: tuple[str, ...], login: str
) -> None:
    with custom_server(tmp_path, "-js", *options) as host:
        async with open_sink(f"nats://{login}@{host}?stream=EVENTS") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]

        with pytest.raises(SinkUnavailable, match=r"Authorization Violation") as caught:
            async with open_sink(f"nats://{login}s3cret@{host}?timeout=0.3"):
                pass

    assert "s3cret" not in repr(caught.value)


async def test_tls_is_never_left_out_when_it_was_asked_for(nats_server: NatsServer) -> None:
    host = nats_server.url.rpartition("@")[2]
    url = f"tls://joe:s3cret@{host}?timeout=2"

    with pytest.raises(SinkUnavailable, match=r"secure connection not available"):
        async with open_nats(url):
            pass
