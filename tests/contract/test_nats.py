"""What is special about NATS: its outcomes, and the stream."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import nats
import pytest
from tests.support.brokers.readable_brokers import NatsBroker
from tests.support.publisher.sent_messages import new_message

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Outcome, Rejected, Retry
from dsql_outbox.testing import NatsServer

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def responder(server: NatsServer, subject: str, answer: bytes | None) -> AsyncGenerator[None]:
    """Something that listens and is no stream; it gives the answer, if there is one."""

    async def respond(message: Any) -> None:
        if answer is not None:
            await message.respond(answer)

    client: Any = await nats.connect(server.url)  # pyright: ignore[reportUnknownMemberType]
    try:
        await client.subscribe(subject, cb=respond)
        await client.flush()
        yield
    finally:
        await client.close()


# --- outcomes --------------------------------------------------------------------------


async def test_a_message_sent_again_is_delivered_and_stored_once(nats_broker: NatsBroker) -> None:
    message = new_message()

    async with nats_broker.open() as sink:
        outcomes = [*await sink.publish([message]), *await sink.publish([message])]

    assert outcomes == [Delivered()] * 2
    assert len(await nats_broker.stored()) == 1


async def test_a_subject_without_a_stream_may_get_one_and_the_error_says_how(
    nats_broker: NatsBroker,
) -> None:
    async with nats_broker.open() as sink:
        found, missing = await sink.publish([new_message(), new_message(topic="orders.New")])

    assert found == Delivered()
    assert isinstance(missing, Retry)
    assert "no stream takes the subject orders.New" in missing.error
    assert "nats stream add NAME --subjects=orders.New" in missing.error


@pytest.mark.parametrize(
    "topic",
    ["", "a b", "a..b", ".a", "a.", "a.*", "a.>", "a\r\nPUB x 0", "a\0b", "$JS.API.STREAM.PURGE.E"],
)
async def test_a_topic_that_is_no_subject_is_rejected_and_sends_nothing(
    nats_broker: NatsBroker, topic: str
) -> None:
    async with nats_broker.open() as sink:
        bad, good = await sink.publish([new_message(topic=topic), new_message(topic="events.Zoë")])

    assert isinstance(bad, Rejected)
    assert repr(topic) in bad.error
    assert good == Delivered()


async def test_a_message_over_max_payload_is_rejected_with_its_headers_counted(
    nats_broker: NatsBroker,
) -> None:
    limit = 1 << 20
    largest = new_message(payload=b"x" * 1000)

    async with nats_broker.open() as sink:
        (measured,) = await sink.publish([new_message(payload=b"x" * limit)])
        assert isinstance(measured, Rejected)
        size = int(measured.error.split()[2])
        fits = limit - (size - limit)
        payloads = [b"x" * (fits + 1), b"x" * fits]
        over, within = [
            (await sink.publish([new_message(payload=payload)]))[0] for payload in payloads
        ]
        assert await sink.publish([largest]) == [Delivered()]

    assert measured.error.endswith(f"over the server's max_payload of {limit} bytes")
    assert over == Rejected(
        f"message of {limit + 1} bytes is over the server's max_payload of {limit} bytes"
    )
    assert within == Delivered()


async def test_what_the_stream_or_the_server_has_no_room_for_is_rejected(
    nats_broker: NatsBroker,
) -> None:
    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        (headers,) = await sink.publish([new_message(entities="Loan/1@1 " * 10_000)])
        await jetstream.update_stream(name="EVENTS", subjects=["events.>"], max_msg_size=2000)
        size, fits = await sink.publish([new_message(payload=b"x" * 2000), new_message()])

    assert isinstance(headers, Rejected)
    assert "header size exceeds maximum allowed" in headers.error
    assert isinstance(size, Rejected)
    assert "message size exceeds maximum allowed" in size.error
    assert fits == Delivered()


async def test_a_full_stream_may_have_room_later(nats_broker: NatsBroker) -> None:
    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        await jetstream.update_stream(
            name="EVENTS", subjects=["events.>"], max_msgs=1, discard="new"
        )
        outcomes = [await sink.publish([new_message()]) for _ in range(2)]

    assert outcomes == [
        [Delivered()],
        [Retry("refused by JetStream: maximum messages exceeded (10077)")],
    ]


@pytest.mark.parametrize("answer", [b"{}", b"ok", b""])
async def test_an_answer_that_is_no_acknowledgement_delivers_nothing(
    nats_server: NatsServer, answer: bytes
) -> None:
    async with responder(nats_server, "x", answer), open_sink(nats_server.url) as sink:
        outcomes = await sink.publish([new_message(topic="x")])

    assert outcomes == [Retry("what answers on x is no stream")]


async def test_without_an_acknowledgement_a_publish_ends_at_the_timeout(
    nats_server: NatsServer,
) -> None:
    messages = [new_message(topic="x", key=f"Loan/{n}") for n in range(300)]

    async with (
        responder(nats_server, "x", None),
        open_sink(f"{nats_server.url}?timeout=0.3") as sink,
    ):
        started = monotonic()
        outcomes = await sink.publish(messages)
        took = monotonic() - started

    expected: list[Outcome] = [Retry("no acknowledgement within 0.3 s")] * 256
    assert outcomes == expected + [NotAttempted()] * 44
    assert 0.3 <= took < 2


async def test_an_answer_that_comes_too_late_is_passed_over(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    client: Any = await nats.connect(nats_server.url)  # pyright: ignore[reportUnknownMemberType]
    held: list[Any] = []

    async def hold(message: Any) -> None:
        held.append(message)

    try:
        await client.subscribe("x", cb=hold)
        await client.flush()
        async with open_sink(f"{nats_server.url}?stream=EVENTS&timeout=0.3") as sink:
            late = await sink.publish([new_message(topic="x")])
            await held[0].respond(b'{"stream":"EVENTS","seq":1}')
            await client.flush()
            after = await sink.publish([new_message()])
    finally:
        await client.close()

    assert late == [Retry("no acknowledgement within 0.3 s")]
    assert after == [Delivered()]
    assert not caplog.records


# --- the stream ------------------------------------------------------------------------


async def test_a_missing_stream_is_made(nats_server: NatsServer, nats_broker: NatsBroker) -> None:
    async with (
        open_sink(f"{nats_server.url}?stream=ORDERS&subjects=a.>,b.*"),
        nats_broker.jetstream() as jetstream,
    ):
        config = (await jetstream.stream_info("ORDERS")).config

    assert config.subjects == ["a.>", "b.*"]
    assert config.storage == "file"
    assert config.duplicate_window == 120


async def test_a_stream_that_is_there_stays_as_it_is(
    nats_server: NatsServer, nats_broker: NatsBroker
) -> None:
    async with nats_broker.jetstream() as jetstream:
        await jetstream.add_stream(name="ORDERS", subjects=["orders"], storage="memory")
        before = (await jetstream.stream_info("ORDERS")).config
        async with open_sink(f"{nats_server.url}?stream=ORDERS"):
            pass
        assert (await jetstream.stream_info("ORDERS")).config == before


async def test_a_stream_whose_subjects_are_taken_is_a_wrong_setting(
    nats_server: NatsServer, nats_broker: NatsBroker
) -> None:
    async with nats_broker.open():
        with pytest.raises(SettingsError, match=r"cannot make stream MORE: subjects overlap"):
            async with open_sink(f"{nats_server.url}?stream=MORE"):
                pass
