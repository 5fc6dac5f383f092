"""What is special about Redis Streams: what the server refuses, and what it confirms."""

import asyncio
import signal
import ssl
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis import Redis
from tests.support.brokers.certificates import Authority
from tests.support.brokers.redis_sentinel import NAME, RedisSentinel
from tests.support.brokers.redis_server import RedisBroker, RedisServer, read_streams
from tests.support.commands import Command, run
from tests.support.proxy.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

from dsql_outbox import Database, Entity, Event, Writer
from dsql_outbox.brokers.redis import sink as redis_sink
from dsql_outbox.outbox import Message, SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import (
    Delivered,
    NotAttempted,
    Outcome,
    Rejected,
    Unavailable,
)
from dsql_outbox.servers.server_process import free_port
from dsql_outbox.testing.sink_contract import Stored, deliver, in_order, new_message, published

pytestmark = pytest.mark.anyio

LOST = 1  # a port on which no server listens
EVENTS, LOANS = 3000, 30


def ignore(_index: int, _outcome: Outcome) -> None:
    """Take an answer that the test is not about."""


def ids(found: list[Stored]) -> list[Any]:
    return [stored.event_id for stored in found]


def a_run(length: int, topic: str = "events.X") -> list[Message]:
    return [new_message(topic=topic) for _ in range(length)]


@pytest.fixture
def own_server() -> Generator[RedisServer]:
    """A server of this test's own, which it may kill."""
    with RedisServer() as server:
        yield server


# --- refusals --------------------------------------------------------------------------


async def test_a_topic_that_is_no_stream_is_unavailable_and_the_others_are_not(
    redis_broker: RedisBroker,
) -> None:
    redis_broker.server.client.set("events.Key", "no stream")
    run = a_run(3, "events.Key")
    others = [new_message(key=f"Car/{n}") for n in range(3)]

    async with redis_broker.open() as sink:
        outcomes = await published(sink, [others[0], *run, *others[1:]])

    assert [outcomes[0], *outcomes[4:]] == [Delivered()] * 3
    assert isinstance(outcomes[1], Unavailable)
    assert "WRONGTYPE" in outcomes[1].error
    assert outcomes[2:4] == [NotAttempted()] * 2
    assert ids(await redis_broker.stored()) == [message.event_id for message in others]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"maxmemory": "1"}, "maxmemory"), ({"min_replicas_to_write": "1"}, "NOREPLICAS")],
)
async def test_a_server_that_refuses_every_write_is_unavailable_until_it_takes_them(
    redis_broker: RedisBroker, settings: dict[str, str], reason: str
) -> None:
    run, alone = a_run(3), new_message(key="Loan/2")

    async with redis_broker.open() as sink:
        with redis_broker.server.configured(**settings):
            for messages in (run, [alone], [alone, *run]):
                with pytest.raises(SinkUnavailable, match=reason):
                    await published(sink, messages)
        assert await redis_broker.stored() == []
        await deliver(sink, [alone])
        assert await published(sink, run) == [Delivered()] * 3

    assert ids(await redis_broker.stored()) == [m.event_id for m in (alone, *run)]


async def test_a_replica_is_unavailable_until_it_is_promoted(own_server: RedisServer) -> None:
    with TcpProxy("127.0.0.1", own_server.port) as proxy:
        async with open_sink(f"redis://127.0.0.1:{proxy.port}") as sink:
            own_server.client.replicaof("127.0.0.1", LOST)
            with pytest.raises(SinkUnavailable, match="read only replica"):
                await published(sink, a_run(2))
            own_server.client.replicaof("NO", "ONE")
            before = proxy.opened
            assert await published(sink, a_run(2)) == [Delivered()] * 2
            assert proxy.opened == before + 1, "the name may lead to another server by now"


async def test_what_was_stored_before_the_server_refused_is_delivered(
    own_server: RedisServer,
) -> None:
    """The server runs out of memory in the middle of a call."""
    big = b'"' + b"x" * 1_000_000 + b'"'
    messages = [new_message(key=f"Loan/{n}", payload=big) for n in range(20)]
    own_server.client.config_set(
        "maxmemory", own_server.client.info("memory")["used_memory"] + 9_000_000
    )

    async with open_sink(own_server.url) as sink:
        outcomes = await published(sink, messages)
        delivered = outcomes.count(Delivered())
        assert 0 < delivered < len(messages)
        assert outcomes[delivered:] == [NotAttempted()] * (len(messages) - delivered)
        with pytest.raises(SinkUnavailable, match="maxmemory"):
            await published(sink, messages[delivered:])

    assert ids(own_server.stored()) == [message.event_id for message in messages[:delivered]]


async def test_a_run_that_the_server_has_no_memory_for_is_not_stored_at_all(
    own_server: RedisServer,
) -> None:
    """XADD of the run's first messages is queued, and its memory is full then."""
    big = b'"' + b"x" * 1_000_000 + b'"'
    run = [new_message(payload=big) for _ in range(20)]
    own_server.client.config_set(
        "maxmemory", own_server.client.info("memory")["used_memory"] + 9_000_000
    )

    async with open_sink(own_server.url) as sink:
        with pytest.raises(SinkUnavailable, match="maxmemory"):
            await published(sink, run)
        assert own_server.stored() == []
        own_server.client.config_set("maxmemory", 0)
        assert await published(sink, run) == [Delivered()] * 20


async def test_a_slot_that_the_cluster_does_not_serve_concerns_its_topics_alone() -> None:
    """As one whose shard is gone, with ``cluster-require-full-coverage no``."""
    bus = str(free_port())  # without it, its own port + 10000, which a client may have
    settings = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
    with RedisServer(*settings, "--cluster-port", bus) as server:
        ask = server.client.execute_command
        slot = partial(ask, "CLUSTER KEYSLOT")
        lost = next(name for n in range(99) if slot(name := f"events.{n}") > 8191)
        served = next(name for n in range(99) if slot(name := f"events.{n}") <= 8191)
        ask("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        wait_until(lambda: ask("CLUSTER INFO")["cluster_state"] == "ok")
        async with open_sink(server.url) as sink:
            mixed = [*a_run(2, lost), *(new_message(f"Car/{n}", topic=served) for n in range(2))]
            outcomes = await published(sink, [*mixed, new_message("Loan/2", topic=lost)])
            assert outcomes[1:4] == [NotAttempted(), Delivered(), Delivered()]
            for outcome in (outcomes[0], outcomes[4]):
                assert isinstance(outcome, Unavailable)
                assert "Hash slot not served" in outcome.error
            ask("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
            assert await published(sink, a_run(2, lost)) == [Delivered()] * 2


@pytest.mark.parametrize("confirms", ["", "?fsync=yes"])
@pytest.mark.parametrize("size", [1_100_000, 8_000_000])
async def test_a_payload_over_the_servers_limit_is_rejected_and_the_others_are_delivered(
    own_server: RedisServer, confirms: str, size: int
) -> None:
    own_server.client.config_set("proto-max-bulk-len", 1 << 20)
    large = b'"' + b"x" * size + b'"'
    first, last = ([new_message(f"{place}/{n}") for n in range(3)] for place in ("A", "Z"))
    run = [*a_run(2), new_message(payload=large), *a_run(1)]
    messages = [*first, new_message("L/1", large), *run, new_message("L/2", large), *last]

    async with open_sink(f"{own_server.url}{confirms}") as sink:
        outcomes = await published(sink, messages)
        while missing := [n for n, each in enumerate(outcomes) if each == NotAttempted()]:
            again = await published(sink, [messages[n] for n in missing])
            assert set(again) != {NotAttempted()}
            for n, outcome in zip(missing, again, strict=True):
                outcomes[n] = outcome

    rejected = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)]
    assert [messages[n].payload for n in rejected] == [large] * 3
    assert all("invalid bulk length" in str(outcomes[n]) for n in rejected)
    assert len(outcomes) - outcomes.count(Delivered()) == 3
    kept = {message.event_id for message in messages if message.payload != large}
    assert set(ids(own_server.stored())) == kept


# --- logins and rights -----------------------------------------------------------------


@pytest.fixture
def joe(redis_broker: RedisBroker) -> Iterator[Any]:
    """Set the rights of the user joe; his password is s3cret."""

    def allow(*rights: str, password: str = "s3cret") -> None:
        client.execute_command("ACL", "SETUSER", "joe", "reset", "on", f">{password}", *rights)

    client = redis_broker.server.client
    yield allow
    client.acl_deluser("joe")


def as_joe(broker: RedisBroker, login: str = "joe:s3cret@", more: str = "") -> str:
    return broker.url.replace("redis://", f"redis://{login}") + more


RIGHTS = ("+ping", "+multi", "+exec", "+xadd")


async def test_a_topic_without_the_right_is_unavailable(
    redis_broker: RedisBroker, joe: Any
) -> None:
    joe(*RIGHTS, "~events.*")
    other = new_message(key="Loan/2")

    async with open_sink(as_joe(redis_broker)) as sink:
        outcomes = await published(sink, [*a_run(2, "late.X"), other])

    assert isinstance(outcomes[0], Unavailable)
    assert "no permissions" in outcomes[0].error.lower()
    assert outcomes[1:] == [NotAttempted(), Delivered()]
    assert ids(await redis_broker.stored()) == [other.event_id]


async def test_a_user_without_the_right_to_transactions_is_refused_when_the_sink_is_opened(
    redis_broker: RedisBroker, joe: Any
) -> None:
    joe("+ping", "+xadd", "~*")

    with pytest.raises(SinkUnavailable, match="multi"):
        async with open_sink(as_joe(redis_broker)):
            pass


async def test_a_right_to_transactions_that_is_taken_away_gives_no_false_receipt(
    redis_broker: RedisBroker, joe: Any
) -> None:
    joe(*RIGHTS, "~*")

    async with open_sink(as_joe(redis_broker)) as sink:
        redis_broker.server.client.execute_command("ACL", "SETUSER", "joe", "-multi")
        with pytest.raises(SinkUnavailable, match="multi"):
            await published(sink, a_run(2))


async def test_a_wrong_password_is_unavailable_and_not_shown(
    redis_broker: RedisBroker, joe: Any
) -> None:
    joe(*RIGHTS, "~*", password="other")

    with pytest.raises(SinkUnavailable, match="invalid username-password") as refused:
        async with open_sink(as_joe(redis_broker)):
            pass
    assert "s3cret" not in str(refused.value)


async def test_the_password_file_is_read_for_each_login(
    redis_broker: RedisBroker, redis_proxy: TcpProxy, joe: Any, tmp_path: Path
) -> None:
    joe(*RIGHTS, "~*")
    file = tmp_path / "password"
    file.write_text("s3cret\n")

    async with open_sink(as_joe(redis_broker, "joe@", f"&password_file={file}")) as sink:
        assert await published(sink, [new_message()]) == [Delivered()]
        joe(*RIGHTS, "~*", password="newer")
        file.write_text("newer\n")
        redis_proxy.cut_all()
        await deliver(sink, [new_message()])

    assert len(await redis_broker.stored()) == 2


async def test_a_database_is_chosen_by_its_number(redis_broker: RedisBroker) -> None:
    message = new_message()
    url = f"{redis_broker.server.url}/3"

    async with open_sink(url) as sink:
        assert await published(sink, [message]) == [Delivered()]

    with Redis(port=redis_broker.server.port, db=3) as client:
        assert ids(read_streams(client)) == [message.event_id]
    assert await redis_broker.stored() == []


@asynccontextmanager
async def tls_in_front(server: RedisServer, context: ssl.SSLContext) -> AsyncGenerator[int]:
    """A port that speaks TLS for the server, which the wheel has built without it."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listener:
        yield listener.sockets[0].getsockname()[1]


async def test_tls_trusts_the_authority_of_the_url_and_shows_the_certificate_of_the_client(
    redis_broker: RedisBroker, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    server, client = authority.sign("server"), authority.sign("client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.cert))
    context.load_cert_chain(server.cert, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    own = f"cert={client.cert}&key={client.key}"

    async with tls_in_front(redis_broker.server, context) as port:
        async with open_sink(f"rediss://127.0.0.1:{port}?ca={authority.cert}&{own}") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]
        with pytest.raises(SettingsError, match=r"certificate verify failed.*ca=FILE"):
            async with open_sink(f"rediss://127.0.0.1:{port}?{own}"):
                pass
        with pytest.raises(SinkUnavailable):
            async with open_sink(f"rediss://127.0.0.1:{port}?ca={authority.cert}"):
                pass

    assert len(await redis_broker.stored()) == 1


# --- Sentinel --------------------------------------------------------------------------


@pytest.mark.slow  # Sentinel promotes a server after it has waited for the old one
async def test_the_server_is_the_one_that_sentinel_names(own_server: RedisServer) -> None:
    """The first Sentinel is away. A replica is promoted while the old server hangs."""
    own_server.client.config_set("repl-diskless-sync-delay", 0)
    messages = [new_message(key=f"Loan/{n}") for n in range(40)]
    with RedisServer("--replicaof", f"127.0.0.1 {own_server.port}") as replica:
        own_server.client.set("any", "write")
        wait_until(lambda: bool(own_server.client.wait(1, 100)))
        with RedisSentinel(own_server) as sentinel:
            wait_until(lambda: len(sentinel.client.sentinel_slaves(NAME)) == 1)
            async with open_sink(f"{sentinel.url}&timeout=1") as sink:
                async with anyio.create_task_group() as tasks:  # several connections
                    for message in messages[:20]:
                        tasks.start_soon(deliver, sink, [message])
                wait_until(lambda: bool(own_server.client.wait(1, 100)))
                with own_server.frozen():
                    await deliver(sink, messages[20:])
                    assert {*ids(replica.stored())} == {each.event_id for each in messages}
            unknown = sentinel.url.replace(NAME, "none")
            with pytest.raises(SinkUnavailable, match="No master found for 'none'"):
                async with open_sink(unknown):
                    pass


# --- confirmations ---------------------------------------------------------------------


@pytest.fixture
def _long_after_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal has seconds to arrive: a busy machine may stand still."""
    monkeypatch.setattr(redis_sink, "_WAITS", 0.2)


@pytest.mark.usefixtures("_long_after_the_wait")
async def test_replicas_that_do_not_confirm_leave_no_receipt(own_server: RedisServer) -> None:
    own_server.client.config_set("repl-diskless-sync-delay", 0)
    url = f"{own_server.url}?timeout=4&replicas=1"
    messages = [new_message(key=f"Loan/{n}") for n in range(3)]

    with pytest.raises(SinkUnavailable, match="0 of 1 replicas confirmed"):
        async with open_sink(url):
            pass
    with RedisServer("--replicaof", f"127.0.0.1 {own_server.port}") as replica:
        own_server.client.set("any", "write")  # a WAIT without a write before it is no question
        wait_until(lambda: bool(own_server.client.wait(1, 100)))
        async with open_sink(url) as sink:
            assert await published(sink, messages[:1]) == [Delivered()]
            assert len(replica.stored()) == 1
            with replica.frozen():
                sent = await in_order(sink, messages[1:])
            assert "0 of 1 replicas" in str(sent.unavailable)
            assert sent.outcomes == [NotAttempted()] * 2
            await deliver(sink, messages[1:])

    assert list(dict.fromkeys(ids(own_server.stored()))) == [m.event_id for m in messages]


@pytest.mark.usefixtures("_long_after_the_wait")
async def test_a_receipt_waits_until_the_file_is_synced(own_server: RedisServer) -> None:
    url = f"{own_server.url}?fsync=yes&timeout=15"
    messages = a_run(5)

    with own_server.configured(appendfsync="everysec"):
        async with open_sink(url) as sink:
            assert await published(sink, messages) == [Delivered()] * 5
    with (
        own_server.configured(appendfsync="no"),
        pytest.raises(SinkUnavailable, match="did not sync its file in time"),
    ):
        async with open_sink(f"{own_server.url}?fsync=yes&timeout=5") as sink:
            await published(sink, a_run(5))
    own_server.client.config_set("appendonly", "no")
    with pytest.raises(SinkUnavailable, match="appendonly"):
        async with open_sink(url):
            pass


# --- a server that goes, and answers that come late ------------------------------------


async def test_answers_that_come_late_answer_no_later_call(redis_broker: RedisBroker) -> None:
    redis_broker.server.client.set("late.X", "no stream")
    late = [new_message(key=f"Loan/{n}") for n in range(4)]

    async with redis_broker.open() as sink:
        with redis_broker.server.frozen(), pytest.raises(SinkUnavailable, match="within 3 s"):
            await published(sink, late)
        (outcome,) = await published(sink, [new_message(topic="late.X")])

    assert isinstance(outcome, Unavailable), "the answers of the first call are those of an XADD"


async def test_a_call_that_was_cancelled_leaves_no_answer_to_the_next(
    redis_broker: RedisBroker,
) -> None:
    redis_broker.server.client.set("late.X", "no stream")

    async with redis_broker.open() as sink:
        for delay in (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008):
            messages = [new_message(key=f"Loan/{n}") for n in range(100)]
            with anyio.move_on_after(delay):
                await sink.publish(messages, ignore)
            (outcome,) = await published(sink, [new_message(topic="late.X")])
            assert isinstance(outcome, Unavailable)


async def test_a_killed_server_has_what_it_acknowledged_and_whole_runs_only(
    own_server: RedisServer,
) -> None:
    sent: list[Message] = []
    acknowledged = 0

    async def kill() -> None:
        wait_until(lambda: acknowledged > 3)
        own_server.kill()

    async with open_sink(f"{own_server.url}?timeout=2") as sink, anyio.create_task_group() as tasks:
        tasks.start_soon(partial(anyio.to_thread.run_sync, lambda: anyio.run(kill)))
        with suppress(SinkUnavailable):
            while True:
                run = a_run(50)
                sent += run
                assert await published(sink, run) == [Delivered()] * 50
                acknowledged += 1
    own_server.start()

    found = ids(own_server.stored())
    assert found == [message.event_id for message in sent[: len(found)]]
    assert len(found) in {50 * acknowledged, 50 * (acknowledged + 1)}


async def test_a_stream_is_trimmed_if_the_url_says_so(redis_broker: RedisBroker) -> None:
    messages = [new_message(key=f"Loan/{n}") for n in range(500)]

    async with redis_broker.open() as sink:
        await published(sink, messages)
        assert len(await redis_broker.stored()) == 500
    async with open_sink(f"{redis_broker.url}&maxlen=100") as sink:
        await published(sink, messages)

    kept = ids(await redis_broker.stored())
    assert 100 <= len(kept) < 300, "whole blocks are removed"
    assert kept[-100:] == [message.event_id for message in messages[-100:]]


# --- a publisher -----------------------------------------------------------------------


@pytest.mark.slow
def test_a_publisher_that_is_killed_loses_no_message_and_keeps_the_order(
    redis_broker: RedisBroker, outbox_url: str
) -> None:
    redis = redis_broker.server.client
    events = [
        Event.new("LoanPaid", [Entity("Loan", f"LOAN-{n % LOANS}", {"n": n})])
        for n in range(EVENTS)
    ]
    with Writer(Database(outbox_url)) as writer:
        writer.write_many(events)
    words = ["publish", "--database", outbox_url, "--sink", redis_broker.url, "--lease", "3"]

    with Command(*words) as publisher:
        assert redis.xread({"events.LoanPaid": 0}, block=30_000), "a message within 30 s"
        publisher.signal(signal.SIGKILL)
        assert publisher.finish().code == -signal.SIGKILL
    done = run(*words, "--until-empty")

    assert done.code == 0, done.err
    arrived: dict[str, list[str]] = {}
    for stored in redis_broker.server.stored():
        of_loan = arrived.setdefault(stored.headers["subject"], [])
        if stored.headers["id"] not in of_loan:
            of_loan.append(stored.headers["id"])
    assert arrived == {
        f"Loan/LOAN-{n}": [str(event.id) for event in events[n::LOANS]] for n in range(LOANS)
    }
