"""What every sink must do, whatever its broker.

`Answers` holds each sink to the rules for answers: one per message at most, and none
after the call.
"""

import anyio
import pytest
from tests.support.brokers.readable_brokers import Broker, OpenStage, SqsBroker
from tests.support.publisher.sent_messages import Answers, deliver, in_order, new_message, published

from dsql_outbox.publisher.sinks import Delivered, NotAttempted

pytestmark = pytest.mark.anyio

PAYLOADS = {
    "escapes": rb'{"a":"\u0000\ud800\n","b":1e200000}',
    "not ascii": '{"name":"Zoë 😀 \u2028 \x7f"}'.encode(),
    "odd but exact": b' {"a" : 1,\r\n "a":1.0 }\t',
    "one mebibyte, less the headers": b'"' + b"x" * ((1 << 20) - (4 << 10)) + b'"',
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
async def test_the_payload_arrives_byte_for_byte(broker: Broker, payload: bytes) -> None:
    async with broker.open() as sink:
        outcomes = await published(sink, [new_message(payload=payload)])

    assert list(outcomes) == [Delivered()]
    assert [stored.payload for stored in await broker.stored()] == [payload]


async def test_headers_arrive_and_no_value_adds_one(broker: Broker) -> None:
    key = 'Loan/"7"%\r\nce-forged: yes\r\n\r\n😀'
    message = new_message(key=key, entities="Loan/7@1 Person/9@4", baggage="user=J%C3%B6")

    async with broker.open() as sink:
        await published(sink, [message])

    (stored,) = await broker.stored()
    assert stored.headers == message.headers
    assert stored.topic == message.topic


async def test_messages_of_a_key_arrive_in_order(broker: Broker) -> None:
    messages = [new_message(key=f"Loan/{n % 4}") for n in range(20)]

    async with broker.open() as sink:
        waves = await in_order(sink, messages)

    assert waves.outcomes == [Delivered()] * 20
    arrived = [stored.event_id for stored in await broker.stored()]
    assert len(arrived) == 20
    for n in range(4):
        of_key = [message.event_id for message in messages if message.key == f"Loan/{n}"]
        assert [event_id for event_id in arrived if event_id in of_key] == of_key


async def test_many_messages_have_an_outcome_each(broker: Broker) -> None:
    count = 60 if isinstance(broker, SqsBroker) else 600  # moto takes seconds for 600
    messages = [new_message(key=f"Loan/{n}") for n in range(count)]

    async with broker.open() as sink:
        outcomes = await published(sink, messages)

    assert list(outcomes) == [Delivered()] * count
    assert {stored.event_id for stored in await broker.stored()} == {m.event_id for m in messages}


async def test_a_call_without_messages_stores_nothing_and_has_no_outcomes(broker: Broker) -> None:
    async with broker.open() as sink:
        assert list(await published(sink, [])) == []

    assert await broker.stored() == []


async def test_several_tasks_may_publish_at_once(broker: Broker) -> None:
    batches = [[new_message(key=f"Loan/{n}-{m}") for m in range(20)] for n in range(4)]

    async with broker.open() as sink, anyio.create_task_group() as tasks:
        for batch in batches:
            tasks.start_soon(published, sink, batch)

    arrived = {stored.event_id for stored in await broker.stored()}
    assert arrived == {message.event_id for batch in batches for message in batch}


async def test_a_call_that_was_cancelled_answers_nothing_more(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    cut = Answers(50)

    async with broker.open() as sink:
        with anyio.move_on_after(0):  # at its first wait, so its messages may be on their way
            await sink.publish([new_message(key=f"Cut/{n}") for n in range(50)], cut)
        cut.end()
        later = await published(sink, [new_message(key="Loan/1")])

    assert later == [Delivered()]
    assert not caplog.records, "an answer after the call raises, and the error is logged"


async def test_what_a_sink_stored_before_is_still_there(broker: Broker) -> None:
    first, second = new_message(), new_message()

    for message in (first, second):
        async with broker.open() as sink:
            await published(sink, [message])

    assert [stored.event_id for stored in await broker.stored()] == [
        first.event_id,
        second.event_id,
    ]


async def test_nothing_overtakes_a_message_that_failed(open_stage: OpenStage) -> None:
    topics = ["events.X", "late.X", "events.X", "events.X", "events.X"]
    messages = [new_message(topic=topic) for topic in topics]
    ids = [message.event_id for message in messages]

    async with open_stage(messages[1]) as stage:
        waves = await in_order(stage.sink, messages)

        assert waves.outcomes[1] != Delivered()
        assert waves.outcomes[2:] == [NotAttempted()] * 3
        there = {stored.event_id for stored in await stage.broker.stored()}
        assert there == set(ids[: 2 if stage.stores else 1])

        await stage.heal()
        await deliver(stage.sink, messages[waves.outcomes.count(Delivered()) :])
        stored = await stage.broker.stored()

    for group in [set(topics)] if stage.across_topics else [{topic} for topic in topics]:
        sent = [message.event_id for message in messages if message.topic in group]
        arrived = [found.event_id for found in stored if found.topic in group]
        assert list(dict.fromkeys(arrived)) == sent
        if stage.exactly_once:
            assert arrived == sent
