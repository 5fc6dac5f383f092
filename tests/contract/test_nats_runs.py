"""Runs on NATS: an atomic batch, or one message after the other."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats
import pytest
from tests.support.brokers.nats_cluster import refusing_server
from tests.support.brokers.nats_listener import subscribed
from tests.support.brokers.readable_brokers import NatsBroker
from tests.support.proxy.tcp_proxy import Cut, Link, Streams, TcpProxy

from dsql_outbox.outbox import Message, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import MAX_RUN, Delivered, Rejected, Unavailable
from dsql_outbox.testing import NatsServer
from dsql_outbox.testing.sink_contract import new_message, published
from dsql_outbox.testing.sink_contract.sent_messages import deliver_runs

pytestmark = pytest.mark.anyio

COMMIT = b"Nats-Batch-Commit"


@asynccontextmanager
async def requests(url: str) -> AsyncGenerator[list[Any]]:
    """The messages that clients send to the stream."""
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append(message)

    client: Any = await nats.connect(url)  # pyright: ignore[reportUnknownMemberType]
    try:
        subscription = await subscribed(client, "events.>", hear)
        yield heard
        await client.flush()
        await subscription.drain()  # what has arrived may not have been heard yet
    finally:
        await client.close()


def steps(heard: Sequence[Any]) -> list[int]:
    """The messages that came as batches and alone: the size of each batch, and 1 for one alone.

    The server is shared, so the end of an earlier test's batch may come first. It is left out.
    """
    found: list[int] = []
    for message in heard:
        sequence = int(message.headers.get("Nats-Batch-Sequence", 1))
        if sequence == 1:
            found.append(1)
        elif found:
            found[-1] += 1
    return found


def run(length: int, key: str = "Loan/1") -> list[Message]:
    """Messages of one key."""
    return [new_message(key) for _ in range(length)]


async def ids(broker: NatsBroker) -> list[str]:
    """The events of a loan in the stream, in its order."""
    found = [stored.headers for stored in await broker.stored()]
    return [headers["id"] for headers in found if headers["subject"] == "Loan/1"]


def wanted(messages: Sequence[Message]) -> list[str]:
    """The same of messages that were sent."""
    return [str(message.event_id) for message in messages]


async def test_a_long_run_is_one_batch(nats_server: NatsServer, nats_broker: NatsBroker) -> None:
    first, second, short = run(MAX_RUN), run(16), run(15)

    async with requests(nats_server.url) as heard, nats_broker.open() as sink:
        for messages in (first, second, short):
            assert await published(sink, messages) == [Delivered()] * len(messages)

    assert steps(heard) == [MAX_RUN, 16, *[1] * 15]
    assert [message.reply != "" for message in heard] == [
        *[True, *[False] * (MAX_RUN - 2), True],  # the first batch of a topic is opened, then sent
        *[False] * 15,
        True,
        *[True] * 15,
    ]
    assert await ids(nats_broker) == wanted(first + second + short)


@pytest.mark.parametrize("known", [1, 4, 7])
async def test_a_run_that_is_stored_in_part_goes_one_by_one_until_a_message_is_new(
    nats_server: NatsServer, nats_broker: NatsBroker, known: int
) -> None:
    messages, after = run(40), run(20)

    async with nats_broker.open() as sink:
        await published(sink, messages[:known])
        async with requests(nats_server.url) as heard:
            assert await published(sink, messages) == [Delivered()] * 40
            assert await published(sink, after) == [Delivered()] * 20

    # The batch that is refused, each known message, the new one, and the rest in a batch.
    assert steps(heard)[-known - 4 :] == [40, *[1] * known, 1, 40 - known - 1, 20]
    assert await ids(nats_broker) == wanted(messages + after)


async def test_a_stream_that_takes_no_batches_gets_a_run_one_by_one(
    nats_server: NatsServer, nats_broker: NatsBroker
) -> None:
    messages, more = run(19), run(16)

    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        await jetstream.update_stream(name="EVENTS", subjects=["events.>"], allow_atomic=False)
        async with requests(nats_server.url) as heard:
            assert await published(sink, messages) == [Delivered()] * 19
            assert await published(sink, more) == [Delivered()] * 16

    assert steps(heard) == [1] * 36  # with the one that was to open a batch
    assert await ids(nats_broker) == wanted(messages + more)


@pytest.mark.parametrize("seems_new", [False, True])
async def test_a_server_that_knows_no_batches_gets_a_run_one_by_one(
    nats_server: NatsServer, *, seems_new: bool
) -> None:
    alone: list[str] = []

    async def store(message: Any) -> None:
        """As a server before 2.12 does, whatever the headers are."""
        sequence = message.headers.get("Nats-Batch-Sequence")
        if seems_new and sequence == "1":
            await message.respond(b"")  # another leader, as in a cluster of two versions
            return
        if sequence is None or not seems_new:
            alone.append(message.headers["ce-id"])
        if message.reply:
            await message.respond(b'{"stream":"OLD","seq":1}')

    messages = run(16)
    client: Any = await nats.connect(nats_server.url)  # pyright: ignore[reportUnknownMemberType]
    try:
        await subscribed(client, "events.LoanCreated", store)
        async with open_sink(nats_server.url) as sink:
            assert await published(sink, messages) == [Delivered()] * 16
    finally:
        await client.close()

    assert alone == wanted(messages)


@pytest.mark.parametrize(
    ("bad", "limit"), [(0, "server"), (1, "stream"), (18, "server"), (19, "stream")]
)
async def test_a_message_that_is_too_large_ends_its_run_and_nothing_behind_it_is_stored(
    nats_broker: NatsBroker, bad: int, limit: str
) -> None:
    size = 1 << 20 if limit == "server" else 5000
    messages = run(20)
    messages[bad] = new_message(payload=b"x" * size)

    async with nats_broker.open() as sink, nats_broker.jetstream() as jetstream:
        await jetstream.update_stream(
            name="EVENTS", subjects=["events.>"], allow_atomic=True,
            max_msg_size=4000 if limit == "stream" else -1,
        )  # fmt: skip
        outcomes = await published(sink, messages)

    assert outcomes[:bad] == [Delivered()] * bad
    assert isinstance(outcomes[bad], Rejected)
    assert Delivered() not in outcomes[bad:]
    assert await ids(nats_broker) == wanted(messages[:bad])


async def test_no_more_batches_are_open_than_a_stream_takes(
    nats_server: NatsServer, nats_broker: NatsBroker
) -> None:
    runs = {f"Loan/{n}": run(16, f"Loan/{n}") for n in range(60)}

    async with requests(nats_server.url) as heard, nats_broker.open() as sink:
        outcomes = await published(sink, [m for messages in runs.values() for m in messages])

    assert outcomes == [Delivered()] * 960
    assert len(heard) == 960, "a batch that is refused is sent again"
    stored = [message.headers for message in await nats_broker.stored()]
    for key, messages in runs.items():
        assert [each["id"] for each in stored if each["subject"] == key] == wanted(messages)


async def test_runs_that_are_refused_keep_no_batch_open(tmp_path: Path) -> None:
    with refusing_server(tmp_path) as url:
        open_one = open_sink(f"{url}?stream=EVENTS&subjects=events.>,Secret.>")
        async with requests(url) as heard, open_one as sink:
            for n in range(4):  # as many batches as may be open
                secret = [new_message(f"Loan/{n}", topic="Secret.X") for _ in range(20)]
                assert isinstance((await published(sink, secret))[0], Unavailable)
            await deliver_runs(sink, run(20))
    assert steps(heard) == [20]


async def test_a_run_without_a_stream_is_unavailable_at_its_first_message(
    nats_broker: NatsBroker,
) -> None:
    async with nats_broker.open() as sink:
        first, *others = await published(sink, [new_message(topic="x") for _ in range(3)])

    assert isinstance(first, Unavailable)
    assert Delivered() not in others


class CutAtTheCommit(TcpProxy):
    """Closes the connection when a batch is about to be committed, the first time."""

    is_armed = True

    def _link(self, client: Streams, server: Streams) -> Link:
        return _CutAtTheCommit(self, client, server)


class _CutAtTheCommit(Link):
    async def from_client(self, data: bytes) -> None:
        proxy = self._proxy
        assert isinstance(proxy, CutAtTheCommit)
        if not proxy.is_armed or COMMIT not in data:
            self.to_server(data)
            return
        proxy.is_armed = False
        commit = data.rindex(b"HPUB", 0, data.index(COMMIT))
        self.to_server(data[:commit])
        raise Cut


async def test_a_batch_whose_sender_dies_before_the_commit_leaves_nothing(
    nats_server: NatsServer, nats_broker: NatsBroker
) -> None:
    messages, there = run(20), urlsplit(nats_server.url)
    assert there.port is not None
    async with nats_broker.open():
        pass
    with CutAtTheCommit("127.0.0.1", there.port) as proxy:
        url = nats_server.url.replace(f":{there.port}", f":{proxy.port}")
        async with open_sink(f"{url}?timeout=2") as sink:
            with pytest.raises(SinkUnavailable):
                await published(sink, messages)
            stored_first = await ids(nats_broker)
            await deliver_runs(sink, messages)

    assert not proxy.is_armed
    assert stored_first == []
    assert await ids(nats_broker) == wanted(messages)
