"""The checks of the contract suite."""

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final

import anyio
import pytest
from msgspec.structs import replace

from dsql_outbox.outbox.content_type import is_json
from dsql_outbox.outbox.errors import SinkUnavailable
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import (
    MAX_RUN,
    MAX_RUN_BYTES,
    Delivered,
    NotAttempted,
    Rejected,
)

from .readable_broker import OpenStage, ReadableBroker
from .sent_messages import (
    Answers,
    deliver,
    deliver_runs,
    in_order,
    new_message,
    published,
    skip_without_runs,
)

_PAYLOADS: Final = {
    "escapes": rb'{"a":"\u0000\ud800\n","b":1e200000}',
    "not ascii": '{"name":"Zoë 😀 \u2028 \x7f"}'.encode(),
    "odd but exact": b' {"a" : 1,\r\n "a":1.0 }\t',
}

_CONTENTS: Final = {
    "binary": ("application/octet-stream", bytes(range(256)) * 5),
    "binary that looks like JSON": ("application/avro", b'{"n":1}'),
    "text": ("text/plain; charset=utf-8", ' "Zoë" 😀\r\n\t100 %'.encode()),
    "JSON of another type": ("application/vnd.shop+json", b'{"total": 1e2}'),
    "empty": ("application/octet-stream", b""),
    "empty text": ("text/plain", b""),
}
"""Content types and payloads."""

_BAD_NAMES: Final = ("x user", "x\r\nuser", "x\0", "naïve", "", "x:")
"""Names of headers that are no tokens. A role that may insert rows can write them."""

_OUTAGE: Final = 60
"""Seconds that a sink may take to say that its broker is away, and to find it again."""


@pytest.mark.anyio
class SinkContract:
    """The rules for every sink. Subclass it, and add a fixture ``broker``.

    `Answers` holds the sink to the rules for answers in every check: one per message at
    most, and none after the call. A check of something that the broker does not promise
    is skipped.
    """

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Sinks run on asyncio."""
        return "asyncio"

    @pytest.fixture
    def open_stage(self) -> OpenStage:
        """Override this with the faults that your broker can have at one message."""
        pytest.skip("no fault at one message was given")

    @pytest.mark.parametrize("payload", _PAYLOADS.values(), ids=_PAYLOADS)
    async def test_the_payload_arrives(self, broker: ReadableBroker, payload: bytes) -> None:
        await _arrives(broker, payload)

    async def test_the_largest_payload_arrives(self, broker: ReadableBroker) -> None:
        await _arrives(broker, b'"' + b"x" * (broker.max_payload - 2) + b'"')

    async def test_bytes_that_are_no_text_arrive_or_are_rejected(
        self, broker: ReadableBroker
    ) -> None:
        other = new_message(key="Loan/2")
        binary = new_message(key="Loan/1", payload=b"\x00\xff\xfe\n{")

        async with broker.open() as sink:
            outcomes = await published(sink, [binary, other])

        stored = {each.event_id: each.payload for each in await broker.stored()}
        assert outcomes[1] == Delivered()
        assert other.event_id in stored
        if outcomes[0] == Delivered():
            assert stored[binary.event_id] == binary.payload
        else:
            assert isinstance(outcomes[0], Rejected)
            assert binary.event_id not in stored

    @pytest.mark.parametrize(("content_type", "payload"), _CONTENTS.values(), ids=_CONTENTS)
    async def test_a_payload_of_another_type_arrives_with_its_type(
        self, broker: ReadableBroker, content_type: str, payload: bytes
    ) -> None:
        mapped = new_message(payload=payload, datacontenttype=content_type)
        other = new_message(key="Loan/2")

        async with broker.open() as sink:
            outcomes = await published(sink, [mapped, other])

        stored = {each.event_id: each for each in await broker.stored()}
        assert outcomes[1] == Delivered()
        assert other.event_id in stored
        if payload or broker.takes_empty:
            assert outcomes[0] == Delivered()
            found = stored[mapped.event_id]
            assert found.headers["datacontenttype"] == content_type
            assert _is_equal(broker, found.payload, mapped)
        else:
            assert isinstance(outcomes[0], Rejected)
            assert mapped.event_id not in stored

    async def test_headers_arrive_and_no_value_adds_one(self, broker: ReadableBroker) -> None:
        key = 'Loan/"7"%\r\nce-forged: yes\r\n\r\n😀'
        message = new_message(key=key, entities="Loan/7@1 Person/9@4", baggage="user=J%C3%B6")

        async with broker.open() as sink:
            await published(sink, [message])

        (stored,) = await broker.stored()
        assert stored.headers == message.headers
        assert stored.topic == message.topic

    async def test_a_header_that_the_broker_lacks_harms_no_other_message(
        self, broker: ReadableBroker
    ) -> None:
        bad = [new_message(f"Loan/bad-{n}") for n in range(len(_BAD_NAMES))]
        for message, name in zip(bad, _BAD_NAMES, strict=True):
            message.headers[name] = "v"
        of_a_map = {"X-Tenant.id": 'acme 7%"', "__TypeId__": "Loan"}
        bad.append(replace(new_message("Loan/mapped"), wire_headers=of_a_map))
        good = [new_message(f"Loan/{n}") for n in range(len(bad))]
        mixed = [message for pair in zip(bad, good, strict=True) for message in pair]

        async with broker.open() as sink:
            outcomes = await published(sink, mixed)

        assert outcomes[1::2] == [Delivered()] * len(good)
        arrived = {stored.event_id: stored.headers for stored in await broker.stored()}
        assert {message.event_id: message.headers for message in good}.items() <= arrived.items()
        for message, outcome in zip(bad, outcomes[::2], strict=True):
            assert isinstance(outcome, Delivered | Rejected)
            assert (message.event_id in arrived) == (outcome == Delivered())

    async def test_messages_of_a_key_arrive_in_order(self, broker: ReadableBroker) -> None:
        if not broker.ordered:
            pytest.skip("the broker keeps no order")
        messages = [new_message(key=f"Loan/{n % 4}") for n in range(20)]

        async with broker.open() as sink:
            sent = await in_order(sink, messages)

        assert sent.outcomes == [Delivered()] * 20
        arrived = [stored.event_id for stored in await broker.stored()]
        assert len(arrived) == 20
        for n in range(4):
            of_key = [message.event_id for message in messages if message.key == f"Loan/{n}"]
            assert [event_id for event_id in arrived if event_id in of_key] == of_key

    async def test_a_message_that_is_sent_twice_is_stored_once(
        self, broker: ReadableBroker
    ) -> None:
        if not broker.deduplicates:
            pytest.skip("the broker does not know a message again")
        message = new_message()

        async with broker.open() as sink:
            for _ in range(2):
                assert await published(sink, [message]) == [Delivered()]

        assert [stored.event_id for stored in await broker.stored()] == [message.event_id]

    async def test_many_messages_have_an_outcome_each(self, broker: ReadableBroker) -> None:
        messages = [new_message(key=f"Loan/{n}") for n in range(broker.many)]

        async with broker.open() as sink:
            outcomes = await published(sink, messages)

        assert outcomes == [Delivered()] * len(messages)
        arrived = {stored.event_id for stored in await broker.stored()}
        assert arrived == {message.event_id for message in messages}

    async def test_a_call_without_messages_stores_nothing_and_has_no_outcomes(
        self, broker: ReadableBroker
    ) -> None:
        async with broker.open() as sink:
            assert await published(sink, []) == []

        assert await broker.stored() == []

    async def test_several_tasks_may_publish_at_once(self, broker: ReadableBroker) -> None:
        batches = [[new_message(key=f"Loan/{n}-{m}") for m in range(10)] for n in range(4)]

        async with broker.open() as sink:
            outcomes = await asyncio.gather(*(published(sink, batch) for batch in batches))

        assert outcomes == [[Delivered()] * 10] * 4
        arrived = {stored.event_id for stored in await broker.stored()}
        assert arrived == {message.event_id for batch in batches for message in batch}

    async def test_a_call_that_was_cancelled_answers_nothing_more(
        self, broker: ReadableBroker
    ) -> None:
        cut = Answers(50)

        with _loop_errors() as errors:
            async with broker.open() as sink:
                # Cancelled at its first wait, so its messages may be on their way.
                with anyio.move_on_after(0):
                    await sink.publish([new_message(key=f"Cut/{n}") for n in range(50)], cut)
                cut.end()
                later = await published(sink, [new_message(key="Loan/1")])
                await asyncio.sleep(0)  # callbacks that are due have run

        assert later == [Delivered()]
        assert cut.late == [], "messages that were answered after the call"
        assert errors == [], "errors that nobody awaits, which asyncio has"

    async def test_closing_ends_the_tasks_of_the_sink(self, broker: ReadableBroker) -> None:
        before = asyncio.all_tasks()

        async with broker.open() as sink:
            await published(sink, [new_message()])

        assert asyncio.all_tasks() <= before

    async def test_what_a_sink_stored_before_is_still_there(self, broker: ReadableBroker) -> None:
        messages = [new_message(), new_message()]

        for message in messages:
            async with broker.open() as sink:
                await published(sink, [message])

        arrived = {stored.event_id for stored in await broker.stored()}
        assert arrived == {message.event_id for message in messages}

    async def test_a_broker_that_is_away_is_an_unavailable_sink_until_it_is_back(
        self, broker: ReadableBroker
    ) -> None:
        outage, message = broker.outage(), new_message()
        if outage is None:
            pytest.skip("the suite cannot take the broker away")

        with anyio.fail_after(_OUTAGE):
            async with broker.open() as sink:
                await published(sink, [])
                with outage:
                    for messages in ([], [message]):
                        with pytest.raises(SinkUnavailable):
                            await published(sink, messages)
                await deliver(sink, [message])

        assert {stored.event_id for stored in await broker.stored()} == {message.event_id}

    async def test_nothing_overtakes_a_message_that_failed(self, open_stage: OpenStage) -> None:
        topics = ["events.X", "late.X", "events.X", "events.X", "events.X"]
        messages = [new_message(topic=topic) for topic in topics]
        ids = [message.event_id for message in messages]

        async with open_stage(messages[1]) as stage:
            sent = await in_order(stage.sink, messages)

            assert sent.outcomes[1] != Delivered()
            assert sent.outcomes[2:] == [NotAttempted()] * 3
            there = {stored.event_id for stored in await stage.broker.stored()}
            assert there == set(ids[: 2 if stage.stores else 1])

            await stage.heal()
            await deliver(stage.sink, messages[sent.outcomes.count(Delivered()) :])
            stored = await stage.broker.stored()

        for group in [set(topics)] if stage.across_topics else [{topic} for topic in topics]:
            wanted = [message.event_id for message in messages if message.topic in group]
            arrived = [found.event_id for found in stored if found.topic in group]
            assert list(dict.fromkeys(arrived)) == wanted
            if stage.exactly_once:
                assert arrived == wanted

    @pytest.mark.parametrize("size", [20, MAX_RUN_BYTES // MAX_RUN - 1_000], ids=["small", "large"])
    async def test_runs_arrive_in_order(self, broker: ReadableBroker, size: int) -> None:
        runs = {"Loan/1": MAX_RUN, "Loan/2": 1, "Loan/3": 5}
        payload = b'"' + b"x" * size + b'"'
        keys = [key for key, length in runs.items() for _ in range(length)]
        messages = [new_message(key=key, payload=payload) for key in keys]

        async with broker.open() as sink:
            skip_without_runs(sink)
            outcomes = await published(sink, messages)

        assert outcomes == [Delivered()] * len(messages)
        arrived = [stored.event_id for stored in await broker.stored()]
        assert len(arrived) == len(messages)
        for key in runs:
            of_key = [message.event_id for message in messages if message.key == key]
            assert [event_id for event_id in arrived if event_id in of_key] == of_key

    async def test_a_run_stores_nothing_behind_a_message_that_failed(
        self, open_stage: OpenStage
    ) -> None:
        run = [new_message(topic="late.X") for _ in range(5)]
        ids = [message.event_id for message in run]

        async with open_stage(run[2]) as stage:
            skip_without_runs(stage.sink)
            answers = Answers(len(run))
            with suppress(SinkUnavailable):
                await stage.sink.publish(run, answers)
            delivered = answers.outcomes.count(Delivered())

            assert answers.outcomes[:delivered] == [Delivered()] * delivered
            assert delivered <= 2, "the third message failed"
            found = await stage.broker.stored()
            there = list(dict.fromkeys(stored.event_id for stored in found))
            assert there == ids[: len(there)], "what is stored of a run is its beginning"
            assert len(there) >= delivered

            await stage.heal()
            await deliver_runs(stage.sink, run[delivered:])
            stored = [found.event_id for found in await stage.broker.stored()]

        assert list(dict.fromkeys(stored)) == ids
        if stage.exactly_once:
            assert stored == ids


@contextmanager
def _loop_errors() -> Generator[list[dict[str, Any]]]:
    """What the event loop is told in the block of errors that nobody awaits."""
    loop, errors = asyncio.get_running_loop(), list[dict[str, Any]]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, told: errors.append(told))
    try:
        yield errors
    finally:
        loop.set_exception_handler(before)  # other tests may run on the same loop


async def _arrives(broker: ReadableBroker, payload: bytes) -> None:
    message = new_message(payload=payload)
    async with broker.open() as sink:
        outcomes = await published(sink, [message])

    assert outcomes == [Delivered()]
    (stored,) = await broker.stored()
    assert _is_equal(broker, stored.payload, message)


def _is_equal(broker: ReadableBroker, payload: bytes, sent: Message) -> bool:
    if broker.exact or not is_json(sent.content_type):
        return payload == sent.payload
    return bool(json.loads(payload) == json.loads(sent.payload))
