"""What the sink for RabbitMQ promises, on a real server that goes through its faults."""

import asyncio
import logging
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import anyio
import pytest
from tests.support.brokers.certificates import Authority
from tests.support.brokers.rabbitmq_broker import RabbitMqBroker
from tests.support.brokers.rabbitmq_server import RabbitMqServer
from tests.support.brokers.running_broker import URL
from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.outbox import Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import (
    Deferred,
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Unavailable,
    open_sink,
)
from dsql_outbox.servers.server_process import free_port
from dsql_outbox.testing.sink_contract import deliver, new_message, published

if urlsplit(URL).scheme != "rabbitmq":
    pytest.skip("RabbitMQ is no wheel: `make real-brokers` tests it", allow_module_level=True)

pytestmark = pytest.mark.anyio

LARGEST = 200_000
"""The most bytes of a message that the server takes."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """What signs the server's certificate."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def tls_port() -> int:
    """Where the server speaks TLS."""
    return free_port()


@pytest.fixture(scope="module")
def server(authority: Authority, tls_port: int) -> Generator[RabbitMqServer]:
    """A server of these tests, which they may harm."""
    files = authority.sign("rabbitmq")
    with RabbitMqServer(
        f"max_message_size = {LARGEST}",
        f"listeners.ssl.1 = 127.0.0.1:{tls_port}",
        f"ssl_options.cacertfile = {authority.cert}",
        f"ssl_options.certfile = {files.cert}",
        f"ssl_options.keyfile = {files.key}",
    ) as found:
        yield found


@pytest.fixture
def broker(server: RabbitMqServer) -> Generator[RabbitMqBroker]:
    """A new exchange and its queue; a call takes a second at most."""
    server.start()  # if a test has killed it
    with TcpProxy("127.0.0.1", server.port) as proxy:
        found = RabbitMqBroker(server.host, proxy)
        found.parameters = "timeout=1"
        anyio.run(found.prepare)
        yield found


def cars(number: int, topic: str = "events.CarMoved") -> list[Message]:
    return [new_message(f"Car/{topic}-{n}", topic=topic) for n in range(number)]


async def test_an_unroutable_topic_is_unavailable_and_the_others_go_on(
    broker: RabbitMqBroker,
) -> None:
    async with broker.open() as sink:
        outcomes = await published(sink, [*cars(50), *cars(3, "lost.X"), *cars(50, "events.Y")])

    unroutable = outcomes[50]
    assert isinstance(unroutable, Unavailable)
    assert "lost.X" in unroutable.error
    assert broker.name in unroutable.error
    assert outcomes == [Delivered()] * 50 + [unroutable] * 3 + [Delivered()] * 50


async def test_what_nobody_binds_is_delivered_if_no_message_is_mandatory(
    broker: RabbitMqBroker,
) -> None:
    broker.parameters += "&mandatory=no"
    sent = [new_message("Car/7", topic=topic) for topic in ("events.A", "lost.X", "events.B")]
    async with broker.open() as sink:
        outcomes = [outcome for each in sent for outcome in await published(sink, [each])]

    assert outcomes == [Delivered()] * 3
    stored = [each.headers["id"] for each in await broker.drained()]
    assert stored == [sent[0].headers["id"], sent[2].headers["id"]]


async def test_without_its_exchange_all_is_unavailable_until_it_is_there(
    broker: RabbitMqBroker,
) -> None:
    topics = [new_message(topic=f"events.{n}") for n in range(1000)]
    async with broker.open() as sink:
        assert await published(sink, cars(5)) == [Delivered()] * 5
        await broker.delete_exchange()
        outcomes = await published(sink, topics)
        await published(sink, [])
        await broker.declare_exchange()
        later = await published(sink, topics[:200])

    missing = outcomes[0]
    assert isinstance(missing, Unavailable)
    assert f"no exchange '{broker.name}'" in missing.error
    assert outcomes == [missing] * 1000, "all have an answer, although each closes a channel"
    assert later == [Delivered()] * 200


async def test_a_full_queue_that_rejects_defers_its_messages_alone(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    full = RabbitMqBroker(server.host, broker.proxy, x_max_length=10, x_overflow="reject-publish")
    await full.prepare()
    async with broker.channel() as channel:
        queue = await channel.get_queue(full.name, ensure=False)
        await queue.bind(broker.name, "events.Full")
    async with broker.open() as sink:
        outcomes = await published(sink, [*cars(20), *cars(200, "events.Full")])

    refused = [outcome for outcome in outcomes if outcome != Delivered()]
    assert outcomes[:20] == [Delivered()] * 20
    assert len(refused) >= 150
    assert all(isinstance(each, Deferred) and "events.Full" in each.error for each in refused)


async def test_a_full_queue_takes_messages_when_its_limit_is_gone(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    """A quorum queue that was full for a channel is full for it until it is read."""
    full = RabbitMqBroker(server.host, broker.proxy, x_queue_type="quorum")
    await full.prepare()
    limit = '{"max-length":10,"overflow":"reject-publish"}'
    server.ctl("set_policy", full.name, full.name, limit, "--apply-to", "queues")
    async with full.open() as sink:
        while all(outcome == Delivered() for outcome in await published(sink, cars(50))):
            pass
        server.ctl("clear_policy", full.name)
        await deliver(sink, cars(1))


async def test_a_topic_without_the_right_is_unavailable_and_the_others_go_on(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    user = f"user-{broker.name}"
    server.ctl("add_user", user, "p@ss:w/rd")
    server.ctl("set_permissions", user, "", ".*", "")
    server.ctl("set_topic_permissions", user, broker.name, r"^events\.Car", "")
    url = broker.url.replace("://", f"://{user}:p%40ss%3Aw%2Frd@")
    healthy = cars(50)
    async with open_sink(url) as sink:
        outcomes = await published(sink, [*cars(50), *cars(50, "events.Van"), *cars(50)])
        later = await published(sink, [*healthy, *cars(50, "events.Van")])
        server.ctl("set_topic_permissions", user, broker.name, ".*", "")
        await deliver(sink, cars(50, "events.Van"))

    refused = outcomes[50]
    assert isinstance(refused, Unavailable)
    assert "ACCESS_REFUSED" in refused.error
    assert "p@ss" not in refused.error
    assert outcomes == [Delivered()] * 50 + [refused] * 50 + [Delivered()] * 50
    assert later == [Delivered()] * 50 + [refused] * 50
    there = [stored.event_id for stored in await broker.stored()]
    assert [there.count(message.event_id) for message in healthy] == [1] * 50, (
        "a topic that was refused goes alone, so its closing hits no other message"
    )


async def test_a_message_over_the_limit_is_rejected_alone(broker: RabbitMqBroker) -> None:
    broker.parameters = "timeout=5"
    large = new_message("Car/large", b"x" * (LARGEST + 1))
    async with broker.open() as sink:
        outcomes = await published(sink, [*cars(300), large, *cars(300, "events.Y")])

    assert isinstance(outcomes[300], Rejected)
    assert str(LARGEST) in outcomes[300].error
    del outcomes[300]
    assert outcomes == [Delivered()] * 600
    assert len(await broker.stored()) < 600 + 128, "only those around it are sent twice"


async def test_headers_over_a_frame_and_a_long_routing_key_are_rejected_alone(
    broker: RabbitMqBroker,
) -> None:
    wide = new_message("Car/wide", entities="Loan/é@1," * 15_000)
    long = new_message("Car/long", topic="events." + "x" * 249)
    async with broker.open() as sink:
        outcomes = await published(sink, [wide, *cars(5), long])

    assert isinstance(outcomes[0], Rejected)
    assert "frame_max" in outcomes[0].error
    assert outcomes[-1] == Rejected("RabbitMQ takes a routing key of at most 255 bytes")
    assert outcomes[1:-1] == [Delivered()] * 5


@pytest.mark.parametrize("kind", ["memory_alarm", "disk_alarm"])
async def test_an_alarm_is_an_unavailable_sink_that_sends_nothing_more(
    server: RabbitMqServer, broker: RabbitMqBroker, kind: str
) -> None:
    first, second = cars(3), cars(3, "events.Y")
    async with broker.open() as sink:
        with getattr(server, kind)():
            with anyio.fail_after(4), pytest.raises(SinkUnavailable, match="alarm"):
                await published(sink, first)
            for messages in (second, []):
                began = monotonic()
                with pytest.raises(SinkUnavailable, match="alarm"):
                    await published(sink, messages)
                assert monotonic() - began < 0.9, "it waited, although it knew"
        await deliver(sink, second)
        await deliver(sink, first)

    there = [stored.event_id for stored in await broker.stored()]
    assert set(there) == {message.event_id for message in first + second}
    assert len(there) <= 9, "only what was on its way is stored twice"


async def test_closing_ends_in_time_while_an_alarm_keeps_what_was_sent(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    broker.parameters = "timeout=2"
    large = [new_message(f"Car/{n}", b"x" * (LARGEST - 1)) for n in range(200)]
    with server.memory_alarm(), anyio.fail_after(12):
        async with broker.open() as sink:
            with pytest.raises(SinkUnavailable, match="alarm"):
                await published(sink, large)
            began = monotonic()
        # Before the alarm ends: its command takes seconds on a busy machine.
        assert monotonic() - began < 1.8, "it said goodbye, which nobody reads"


async def test_a_frozen_server_is_an_unavailable_sink_until_it_goes_on(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    messages = [new_message(f"Car/{n}", b"x" * 100_000) for n in range(200)]
    async with broker.open() as sink:
        assert await published(sink, cars(1)) == [Delivered()]
        with server.frozen(), anyio.fail_after(6):
            with pytest.raises(SinkUnavailable, match="within 1 s"):
                await published(sink, messages)
            with pytest.raises(SinkUnavailable):
                await published(sink, [])
        await deliver(sink, messages)


async def test_a_call_that_is_cancelled_while_the_server_is_frozen_ends_at_once(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    async with broker.open() as sink:
        with server.frozen(), anyio.fail_after(0.5):
            with anyio.move_on_after(0.1):
                await published(sink, cars(5))
        await deliver(sink, cars(5))


async def test_closing_ends_in_time_while_the_server_is_frozen(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    before = asyncio.all_tasks()
    with ExitStack() as frozen, anyio.fail_after(5):
        async with broker.open() as sink:
            await published(sink, cars(1))
            frozen.enter_context(server.frozen())

    assert asyncio.all_tasks() <= before


async def test_what_was_confirmed_survives_a_killed_server(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    before, after = cars(100), cars(100, "events.Y")
    async with broker.open() as sink:
        assert await published(sink, before) == [Delivered()] * 100
        server.kill()
        with pytest.raises(SinkUnavailable, match=r"RabbitMQ at 127\.0\.0\.1"):
            await published(sink, after)
        server.start()
        await deliver(sink, after)

    assert {stored.event_id for stored in await broker.stored()} == {
        message.event_id for message in before + after
    }


async def test_a_stopped_broker_says_so(server: RabbitMqServer, broker: RabbitMqBroker) -> None:
    async with broker.open() as sink:
        await published(sink, cars(1))
        with server.app_stopped(), pytest.raises(SinkUnavailable):
            await published(sink, cars(1))
        await deliver(sink, cars(1))


async def test_messages_of_a_silent_queue_are_deferred_and_the_others_go_on(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    silent = RabbitMqBroker(server.host, broker.proxy)
    await silent.prepare()
    async with broker.channel() as channel:
        queue = await channel.get_queue(silent.name, ensure=False)
        await queue.bind(broker.name, "late.#")
    async with broker.open() as sink:
        with server.silent_queue(silent.name):
            outcomes = await published(sink, [*cars(5), *cars(2, "late.X")])
        await deliver(sink, cars(2, "late.X"))

    quiet = outcomes[-1]
    assert isinstance(quiet, Deferred)
    assert "late.X" in quiet.error
    assert outcomes == [Delivered()] * 5 + [quiet] * 2


async def test_a_queue_without_a_majority_stops_no_other_topic(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    """A channel hangs at its first message for that queue, and RabbitMQ does not close it."""
    sick = await _another_queue(server, broker, "sick.X")
    healthy: list[float] = []
    outcomes: list[Outcome] = []
    async with broker.open() as sink:
        assert await published(sink, [*cars(1), *cars(1, "sick.X")]) == [Delivered()] * 2
        server.take_majority(sick)

        async def send_sick_ones() -> None:
            for n in range(4):
                messages = [new_message(f"Car/{n}-{k}", topic="sick.X") for k in range(3)]
                outcomes.extend(await published(sink, messages))
            finished.set()

        finished = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send_sick_ones)
            while not finished.is_set():
                began = monotonic()
                assert await published(sink, cars(3)) == [Delivered()] * 3
                healthy.append(monotonic() - began)
                await anyio.sleep(0.05)

    silent = [each for each in outcomes if each != NotAttempted()]
    assert len(silent) >= 4
    assert all(isinstance(each, Deferred) and "sick.X" in each.error for each in silent)
    assert max(healthy) < 1, "it waited for the other topic"
    assert broker.proxy is not None
    assert broker.proxy.opened == 1, "no connection was cut"


async def test_messages_beside_one_that_hangs_go_on_in_other_channels(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    sick = await _another_queue(server, broker, "sick.X")
    healthy = cars(300)
    async with broker.open() as sink:
        server.take_majority(sick)
        first = await published(sink, [*healthy[:50], *cars(1, "sick.X"), *healthy[50:]])
        left = [
            message
            for message, outcome in zip(healthy, [*first[:50], *first[51:]], strict=True)
            if outcome != Delivered()
        ]
        await deliver(sink, left)
        alone = await published(sink, cars(1, "sick.X"))
        began = monotonic()
        again = await published(sink, cars(1, "sick.X"))
        took = monotonic() - began

    assert {type(each) for each in first} <= {Delivered, NotAttempted}
    assert isinstance(alone[0], Deferred)
    assert isinstance(again[0], Deferred)
    assert took < 0.9, "the same message blocked another channel"


async def test_a_topic_without_a_majority_blocks_few_channels_and_is_back_soon(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    sick = await _another_queue(server, broker, "sick.X")
    async with broker.open() as sink:
        with server.silent_queue(sick):
            for n in range(12):
                outcomes = await published(sink, [new_message(f"Car/{n}", topic="sick.X")])
                assert isinstance(outcomes[0], Deferred)
            channels = sum(map(int, server.ctl("list_connections", "channels").split()[1:]))
        began = monotonic()
        await deliver(sink, [new_message("Car/0", topic="sick.X")])

    assert 4 <= channels <= 8
    assert monotonic() - began < 15


async def test_a_topic_of_which_one_queue_is_silent_goes_on(
    server: RabbitMqServer, broker: RabbitMqBroker
) -> None:
    """Its subjects are spread over two queues, as docs/rabbitmq.md shows."""
    silent = RabbitMqBroker(server.host, broker.proxy)
    await silent.prepare()
    async with broker.channel() as channel:
        by_subject = await channel.declare_exchange(
            f"{broker.name}.by-subject",
            "x-consistent-hash",
            arguments={"hash-header": "ce-subject"},
        )
        await by_subject.bind(broker.name, "late.#")
        for name in (silent.name, broker.name):
            queue = await channel.get_queue(name, ensure=False)
            await queue.bind(by_subject, "1")
    async with broker.open() as sink:
        with server.silent_queue(silent.name), anyio.fail_after(4):
            outcomes = await published(sink, cars(1000, "late.X"))

    assert {type(outcome) for outcome in outcomes} == {Delivered, Deferred, NotAttempted}


async def test_the_next_host_is_tried(broker: RabbitMqBroker) -> None:
    with TcpProxy("127.0.0.1", 1) as closed:
        closed.pause_listening()
        dead = f"127.0.0.1:{closed.port}"
        async with open_sink(broker.url.replace("://", f"://{dead},")) as sink:
            assert await published(sink, cars(1)) == [Delivered()]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("://", "://guest:s3cret@"), "ACCESS_REFUSED"),
        (("?", "/nowhere?"), "virtual host nowhere is missing"),
    ],
)
async def test_a_refused_login_is_an_unavailable_sink_that_names_the_reason(
    broker: RabbitMqBroker, change: tuple[str, str], reason: str
) -> None:
    with pytest.raises(SinkUnavailable, match=reason) as refused:
        async with open_sink(broker.url.replace(*change)):
            pass

    assert "s3cret" not in str(refused.value)


async def test_tls_checks_the_certificate_of_the_server(
    broker: RabbitMqBroker, authority: Authority, tls_port: int
) -> None:
    url = f"rabbitmqs://127.0.0.1:{tls_port}?exchange={broker.name}"
    with pytest.raises(SettingsError, match="ca=FILE in the URL"):
        async with open_sink(url):
            pass
    async with open_sink(f"{url}&ca={authority.cert}") as sink:
        assert await published(sink, cars(3)) == [Delivered()] * 3


@pytest.mark.usefixtures("broker")
async def test_a_server_that_wants_tls_is_unavailable_without(tls_port: int) -> None:
    with anyio.fail_after(5), pytest.raises(SinkUnavailable):
        async with open_sink(f"rabbitmq://127.0.0.1:{tls_port}?timeout=1"):
            pass


async def test_a_password_file_is_read_for_each_login(
    server: RabbitMqServer, broker: RabbitMqBroker, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    user = f"user-{broker.name}"
    server.ctl("add_user", user, "first")
    server.ctl("set_permissions", user, "", ".*", "")
    url = broker.url.replace("://", f"://{user}@") + f"&password_file={file}"
    async with open_sink(url) as sink:
        await published(sink, cars(1))
        server.ctl("change_password", user, "second")
        file.write_text("second\n")
        assert broker.proxy is not None
        broker.proxy.cut_all()
        await deliver(sink, cars(1))


async def test_aiormq_logs_nothing_of_a_sink(
    server: RabbitMqServer, broker: RabbitMqBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    marked = [
        new_message(f"Car/{n}", b"a secret", topic)
        for n in range(3)
        for topic in ("events.X", "lost.X")
    ]
    async with broker.open() as sink:
        await published(sink, marked)
        await broker.delete_exchange()
        await published(sink, marked)
        server.kill()
        with pytest.raises(SinkUnavailable):
            await published(sink, marked)

    assert "a secret" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


async def _another_queue(server: RabbitMqServer, broker: RabbitMqBroker, topic: str) -> str:
    """Make a quorum queue that gets the messages of a topic; returns its name."""
    other = RabbitMqBroker(server.host, broker.proxy, x_queue_type="quorum")
    await other.prepare()
    async with broker.channel() as channel:
        queue = await channel.get_queue(other.name, ensure=False)
        await queue.bind(broker.name, topic)
    return other.name
