"""A Kafka broker that goes and comes back, and getting to one at all."""

import socket
import socketserver
import ssl
from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.support.brokers.certificates import Authority
from tests.support.brokers.kafka_mock import MockKafka
from tests.support.brokers.readable_brokers import KafkaBroker
from tests.support.stand_ins import StandIn

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Outcome
from dsql_outbox.testing.sink_contract import Before, deliver, in_order, new_message, published

pytestmark = pytest.mark.anyio


# --- a broker that goes ----------------------------------------------------------------


async def test_a_broker_killed_between_waves_is_unavailable_and_then_gets_the_rest(
    kafka_mock: MockKafka, kafka_broker: KafkaBroker
) -> None:
    messages = [new_message(key=f"Loan/{n % 2}") for n in range(10)]

    async with open_sink(f"{kafka_broker.url}&timeout=1") as inner:
        sink = Before(inner, messages[5].event_id, partial(kafka_mock.take_down, 1))
        waves = await in_order(sink, messages)
        assert isinstance(waves.unavailable, SinkUnavailable)
        assert waves.outcomes == [Delivered()] * 4 + [NotAttempted()] * 6

        kafka_mock.bring_up(1)
        await deliver(sink, messages[4:])

    arrived = [stored.event_id for stored in await kafka_broker.stored()]
    for key in ("Loan/0", "Loan/1"):
        sent = [message.event_id for message in messages[4:] if message.key == key]
        assert [event_id for event_id in arrived if event_id in sent] == sent


async def test_a_broker_killed_with_messages_stored_and_unanswered_gets_them_again_in_order(
    kafka_mock: MockKafka, kafka_broker: KafkaBroker
) -> None:
    messages = [new_message(key=f"Loan/{n % 4}") for n in range(20)]
    ids = [message.event_id for message in messages]

    async with open_sink(f"{kafka_broker.url}&timeout=1") as sink:
        done = await published(sink, messages[:4])
        with kafka_mock.silent(1):
            waves = await in_order(sink, messages[4:])
        await deliver(sink, messages[4:])
        seen = [stored.event_id for stored in await kafka_broker.stored()]

    assert done == [Delivered()] * 4
    assert waves.unavailable is not None
    assert waves.outcomes == [NotAttempted()] * 16, "it counts against no message"
    assert len(seen) > len(ids), "some were stored twice"
    for n in range(4):
        of_key = [event_id for event_id in dict.fromkeys(seen) if event_id in ids[n::4]]
        assert of_key == ids[n::4]


async def test_a_broker_killed_among_many_batches_burns_no_attempt(
    kafka_mock: MockKafka, kafka_broker: KafkaBroker
) -> None:
    batches = [[new_message(key=f"Loan/{n}-{m}") for m in range(500)] for n in range(20)]
    outcomes: list[Outcome] = []

    async def publish(batch: Sequence[Message]) -> None:
        answers: Sequence[Outcome] = []
        while NotAttempted() not in answers:
            try:
                answers = await published(sink, batch)
            except SinkUnavailable:
                answers = [NotAttempted()] * len(batch)
            outcomes.extend(answers)

    async with open_sink(f"{kafka_broker.url}&timeout=1") as sink:
        await published(sink, [new_message()])
        async with anyio.create_task_group() as tasks:
            for batch in batches:
                tasks.start_soon(publish, batch)
            while not outcomes:  # the first batch is through; all go on until one is not
                await anyio.lowlevel.checkpoint()
            kafka_mock.take_down(1)

        assert set(outcomes) == {Delivered(), NotAttempted()}

        kafka_mock.bring_up(1)
        await deliver(sink, batches[-1])


async def test_a_broker_that_is_silent_is_given_up_after_the_timeout(
    kafka_mock: MockKafka, kafka_broker: KafkaBroker
) -> None:
    async with open_sink(f"{kafka_broker.url}&timeout=0.5") as sink:
        await published(sink, [new_message()])
        with kafka_mock.silent(1):
            started = monotonic()
            with pytest.raises(SinkUnavailable):
                await published(sink, [new_message()])
            took = monotonic() - started

    assert 0.5 <= took < 4.8, "by itself it waits for five seconds"


async def test_closing_is_quick_when_the_broker_has_gone_and_when_it_is_silent(
    kafka_mock: MockKafka, kafka_broker: KafkaBroker
) -> None:
    async with open_sink(f"{kafka_broker.url}&timeout=30") as sink:
        await published(sink, [new_message()])
        with kafka_mock.silent(1), anyio.move_on_after(0.1):
            await published(sink, [new_message()])
        started = monotonic()
    assert monotonic() - started < 10

    async with open_sink(f"{kafka_broker.url}&timeout=30"):
        kafka_mock.take_down(1)
        started = monotonic()
    assert monotonic() - started < 10


# --- connecting ------------------------------------------------------------------------


def test_a_sink_is_named_before_an_event_loop_runs() -> None:
    assert open_sink("kafka://127.0.0.1:1")


async def test_no_broker_is_an_unavailable_sink_that_names_the_hosts_and_no_password() -> None:
    url = "kafka://joe:s3cret@127.0.0.1:1,127.0.0.1:2?timeout=0.2"

    with pytest.raises(SinkUnavailable) as caught:
        async with open_sink(url):
            pass

    assert str(caught.value).startswith("Kafka at 127.0.0.1:1, 127.0.0.1:2: no broker answers (")
    assert "Connection refused" in str(caught.value)
    assert "s3cret" not in repr(caught.value)


async def test_the_second_host_serves_when_the_first_is_down(kafka_broker: KafkaBroker) -> None:
    async with open_sink(f"kafka://127.0.0.1:1,{kafka_broker.bootstrap}") as sink:
        assert await published(sink, [new_message()]) == [Delivered()]


async def test_a_broker_that_comes_up_within_the_timeout_is_waited_for(
    kafka_mock: MockKafka, kafka_broker: KafkaBroker
) -> None:
    kafka_mock.take_down(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, kafka_mock.bring_up, 1)
        async with open_sink(kafka_broker.url) as sink:
            assert await published(sink, [new_message()]) == [Delivered()]


async def test_a_call_without_messages_asks_whether_a_broker_is_there(
    kafka_mock: MockKafka, kafka_broker: KafkaBroker
) -> None:
    async with kafka_broker.open() as sink:
        assert await published(sink, []) == []
        kafka_mock.take_down(1)
        with pytest.raises(SinkUnavailable):
            await published(sink, [])


@pytest.fixture
def tls_listener(tmp_path: Path) -> Generator[int]:
    """The port of something that speaks TLS, and closes what does not."""
    signed = Authority(tmp_path).sign("kafka")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(signed.cert, signed.key)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), context.wrap_socket(self.request, server_side=True) as client:
                client.recv(1)

    with StandIn(Handler).serving() as server:
        yield server.server_port


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        ("tls=no", r"Disconnected: .*; does the listener want TLS \(tls=yes\) or a login\?"),
        ("tls=yes", r"certificate verify failed"),
    ],
)
async def test_the_error_says_why_a_connection_to_a_tls_listener_fails(
    tls_listener: int, parameter: str, reason: str
) -> None:
    with pytest.raises(SinkUnavailable, match=f"no broker answers .*{reason}"):
        async with open_sink(f"kafka://127.0.0.1:{tls_listener}?timeout=1&{parameter}"):
            pass


async def test_the_error_of_a_listener_that_speaks_no_tls_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"kafka://127.0.0.1:{listener.getsockname()[1]}?timeout=3&tls=yes"
        with pytest.raises(SinkUnavailable, match=r"timed out in state SSL_HANDSHAKE"):
            async with open_sink(url):
                pass


@pytest.mark.parametrize(
    ("login", "parameter"), [("", "tls=yes"), ("joe:s3cret@", "tls=no"), ("joe:s3cret@", "tls=yes")]
)
async def test_tls_and_login_are_never_left_out_when_they_were_asked_for(
    kafka_broker: KafkaBroker, login: str, parameter: str
) -> None:
    url = f"kafka://{login}{kafka_broker.bootstrap}?timeout=0.5&{parameter}"

    with pytest.raises(SinkUnavailable) as caught:
        async with open_sink(url):
            pass

    assert "s3cret" not in repr(caught.value)
