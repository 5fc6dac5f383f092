"""What is special about NATS: its outcomes, and the stream."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import anyio
import nats
import pytest
from tests.support.brokers.nats_listener import subscribed
from tests.support.brokers.readable_brokers import NatsBroker

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Outcome, Rejected, Unavailable
from dsql_outbox.testing import NatsServer
from dsql_outbox.testing.sink_contract import Answers, new_message, published

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def responder(server: NatsServer, subject: str, answer: bytes | None) -> AsyncGenerator[None]:
    """Something that listens and is no stream; it gives the answer, if there is one."""

    async def respond(message: Any) -> None:
        if answer is not None:
            await message.respond(answer)

    client: Any = await nats.connect(server.url)  # pyright: ignore[reportUnknownMemberType]
    try:
        await subscribed(client, subject, respond)
        yield
    finally:
        await client.close()


# --- outcomes --------------------------------------------------------------------------


async def test_a_message_sent_again_is_delivered_and_stored_once(nats_broker: NatsBroker) -> None:
    message = new_message()

    async with nats_broker.open() as sink:
        outcomes = [*await published(sink, [message]), *await published(sink, [message])]

    assert outcomes == [Delivered()] * 2
    assert len(await nats_broker.stored()) == 1


async def test_a_subject_without_a_stream_is_unavailable_and_the_error_says_how_to_make_one(
    nats_broker: NatsBroker,
) -> None:
    async with nats_broker.open() as sink:
        found, missing = await published(
            sink, [new_message(), new_message("Loan/2", topic="orders.New")]
        )

    assert found == Delivered()
    assert isinstance(missing, Unavailable)
    assert "no responders on orders.New: no stream takes this NATS subject" in missing.error
    assert "nats stream add NAME --subjects=orders.New" in missing.error


async def test_a_topic_that_is_no_subject_is_rejected_and_sends_nothing(
    nats_broker: NatsBroker,
) -> None:
    topics = ["", "a b", "a..b", ".a", "a.", "a.*", "a.>", "a\r\nPUB x 0", "a\0b"]
    topics += ["$JS.API.STREAM.PURGE.E", "_R_.x", "_GR_.x", "_INBOX", "_INBOX_of_ann.x"]
    async with nats_broker.open() as sink:
        messages = [new_message(f"Loan/{topic!r}", topic=topic) for topic in topics]
        *bad, good = await published(sink, [*messages, new_message(topic="events.Zoë")])

    for topic, outcome in zip(topics, bad, strict=True):
        assert isinstance(outcome, Rejected)
        assert repr(topic) in outcome.error
    assert good == Delivered()
    assert len(await nats_broker.stored()) == 1


async def test_an_event_answers_no_request_of_another_client(nats_broker: NatsBroker) -> None:
    client: Any = await nats.connect(nats_broker.url)  # pyright: ignore[reportUnknownMemberType]
    try:
        inbox = client.new_inbox()
        answers = await subscribed(client, inbox)
        async with nats_broker.open() as sink:
            [outcome] = await published(sink, [new_message(topic=inbox)])
        assert isinstance(outcome, Rejected)
        assert "begins with '_INBOX', which NATS uses itself" in outcome.error
        await client.publish(inbox, b"the answer")
        assert (await answers.next_msg(timeout=5)).data == b"the answer"
    finally:
        await client.close()


async def test_a_message_over_max_payload_is_rejected_with_its_headers_counted(
    nats_broker: NatsBroker,
) -> None:
    limit = 1 << 20
    largest = new_message(payload=b"x" * 1000)

    async with nats_broker.open() as sink:
        (measured,) = await published(sink, [new_message(payload=b"x" * limit)])
        assert isinstance(measured, Rejected)
        size = int(measured.error.split()[2])
        fits = limit - (size - limit)
        payloads = [b"x" * (fits + 1), b"x" * fits]
        over, within = [
            (await published(sink, [new_message(payload=payload)]))[0] for payload in payloads
        ]
        assert await published(sink, [largest]) == [Delivered()]

    assert measured.error.endswith(f"over the server's max_payload of {limit} bytes")
    assert over == Rejected(
        f"message of {limit + 1} bytes is over the server's max_payload of {limit} bytes"
    )
    assert within == Delivered()


async def test_what_the_stream_or_the_server_has_no_room_for_is_rejected(
    nats_broker: NatsBroker,
) -> None:
    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        (headers,) = await published(sink, [new_message(entities="Loan/1@1 " * 10_000)])
        await jetstream.update_stream(name="EVENTS", subjects=["events.>"], max_msg_size=2000)
        size, fits = await published(
            sink, [new_message(payload=b"x" * 2000), new_message(key="Loan/2")]
        )

    assert isinstance(headers, Rejected)
    assert "header size exceeds maximum allowed" in headers.error
    assert isinstance(size, Rejected)
    assert "message size exceeds maximum allowed" in size.error
    assert fits == Delivered()


FULL: dict[str, dict[str, object]] = {
    "maximum messages exceeded": {"max_msgs": 1, "discard": "new"},
    "maximum bytes exceeded": {"max_bytes": 1000, "discard": "new"},
    "maximum messages per subject exceeded": {
        "max_msgs_per_subject": 1,
        "discard": "new",
        "discard_new_per_subject": True,
    },
}


@pytest.mark.parametrize("reason", FULL)
async def test_a_full_stream_makes_its_topics_unavailable_and_says_why(
    nats_broker: NatsBroker, reason: str
) -> None:
    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        await jetstream.update_stream(name="EVENTS", subjects=["events.>"], **FULL[reason])
        outcomes = [await published(sink, [new_message(payload=b"x" * 300)]) for _ in range(2)]

    assert outcomes == [
        [Delivered()],
        [Unavailable(f"refused by JetStream: {reason} (10077)")],
    ]


async def test_a_stream_that_was_closed_is_unavailable(nats_broker: NatsBroker) -> None:
    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        await jetstream.update_stream(name="EVENTS", subjects=["events.>"], sealed=True)
        (outcome,) = await published(sink, [new_message()])

    assert isinstance(outcome, Unavailable)
    assert "sealed" in outcome.error


async def test_answers_come_while_other_messages_of_the_call_and_other_calls_wait(
    nats_broker: NatsBroker,
) -> None:
    silent = [new_message(topic="x", key=f"Slow/{n}") for n in range(100)]
    good = [new_message(key=f"Loan/{n}") for n in range(600)]
    mixed, others = Answers(700), Answers(600)

    async with (
        responder(nats_broker.server, "x", None),
        nats_broker.open() as sink,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(sink.publish, silent + good, mixed)
        await sink.publish([new_message(key=f"Car/{n}") for n in range(600)], others)
        with anyio.fail_after(4.5):  # and the silent ones would take five seconds
            while len(mixed.order) < 600:
                await mixed.next()
        tasks.cancel_scope.cancel()

    assert others.outcomes == [Delivered()] * 600
    assert mixed.outcomes == [NotAttempted()] * 100 + [Delivered()] * 600


async def test_messages_of_a_topic_that_was_heard_get_no_answer_when_theirs_is_lost(
    nats_server: NatsServer,
) -> None:
    async def first_only(message: Any) -> None:
        if message.data == b"heard":
            await message.respond(b'{"stream":"EVENTS","seq":1}')

    client: Any = await nats.connect(nats_server.url)  # pyright: ignore[reportUnknownMemberType]
    try:
        await subscribed(client, "x", first_only)
        async with open_sink(f"{nats_server.url}?timeout=0.3") as sink:
            payloads = [b"heard", b"lost"]
            outcomes = await published(sink, [new_message(topic="x", payload=p) for p in payloads])
    finally:
        await client.close()

    assert outcomes == [Delivered(), NotAttempted()]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        *(
            (said, Unavailable("the responder on x is not a stream"))
            for said in (b"{}", b"ok", b"")
        ),
        (b'{"error":{"err_code":10158,"description":"duplicate in process"}}', NotAttempted()),
    ],
)
async def test_an_answer_that_is_no_acknowledgement_delivers_nothing(
    nats_server: NatsServer, answer: bytes, outcome: Outcome
) -> None:
    async with responder(nats_server, "x", answer), open_sink(nats_server.url) as sink:
        outcomes = await published(sink, [new_message(topic="x")])

    assert outcomes == [outcome]


async def test_without_an_acknowledgement_a_publish_ends_at_the_timeout(
    nats_server: NatsServer,
) -> None:
    messages = [new_message(topic="x", key=f"Loan/{n}") for n in range(300)]

    async with (
        responder(nats_server, "x", None),
        open_sink(f"{nats_server.url}?timeout=0.3") as sink,
    ):
        started = monotonic()
        outcomes = await published(sink, messages)
        took = monotonic() - started

    assert {type(outcome) for outcome in outcomes[:256]} == {Unavailable}
    assert "no acknowledgement for x within 0.3 s" in str(outcomes[0])
    assert outcomes[256:] == [NotAttempted()] * 44
    assert 0.3 <= took < 4.5, "by itself it waits for five seconds"


async def test_an_answer_that_comes_too_late_is_passed_over(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    client: Any = await nats.connect(nats_server.url)  # pyright: ignore[reportUnknownMemberType]
    held: list[Any] = []

    async def hold(message: Any) -> None:
        held.append(message)

    try:
        await subscribed(client, "x", hold)
        async with open_sink(f"{nats_server.url}?stream=EVENTS&timeout=0.3") as sink:
            late = await published(sink, [new_message(topic="x")])
            await held[0].respond(b'{"stream":"EVENTS","seq":1}')
            await client.flush()
            after = await published(sink, [new_message()])
    finally:
        await client.close()

    assert isinstance(late[0], Unavailable)
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
