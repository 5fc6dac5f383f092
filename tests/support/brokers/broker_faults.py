"""The faults of each broker that the suite for all sinks sees its sink through."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.outbox import Message
from dsql_outbox.publisher import Retry, open_sink
from dsql_outbox.publisher.sinks.json_lines import json_line
from dsql_outbox.testing.sink_contract import Before, ReadableBroker, Stage, Stored

from .kafka_mock import MockKafka
from .rabbitmq_broker import RabbitMqBroker
from .readable_brokers import (
    SUBJECTS,
    FileBroker,
    KafkaBroker,
    MemoryBroker,
    NatsBroker,
    NatsPlace,
    SnsBroker,
    SqsBroker,
    files_of_at_most,
)
from .redis_server import RedisBroker
from .sqs_server import SqsServer


@asynccontextmanager
async def memory_fails(how: str, message: Message) -> AsyncGenerator[Stage]:
    broker = MemoryBroker()
    stored = how == "unanswered"
    broker.sink.fail(message.event_id, Retry("once"), stored=stored)

    async def heal() -> None:
        """It fails once."""

    yield Stage(broker.sink, broker, heal, stores=stored)


@asynccontextmanager
async def jsonl_tears_the_line(broker: FileBroker, message: Message) -> AsyncGenerator[Stage]:
    """The disk is full in the middle of the message."""
    with ExitStack() as limit:
        async with broker.open() as sink:

            async def heal() -> None:
                limit.close()

            line = len(json_line(message))
            limit.enter_context(files_of_at_most(line + line // 2))
            yield Stage(sink, broker, heal)


@asynccontextmanager
async def nats_refuses(broker: NatsBroker, _message: Message) -> AsyncGenerator[Stage]:
    """No stream takes the message's subject."""

    async def heal() -> None:
        async with broker.jetstream() as jetstream:
            await jetstream.update_stream(name="EVENTS", subjects=[SUBJECTS, "late.>"])

    async with broker.open() as sink:
        yield Stage(sink, broker, heal, exactly_once=True)


@asynccontextmanager
async def nats_loses_the_answer(
    server: NatsPlace, proxy: TcpProxy, message: Message
) -> AsyncGenerator[Stage]:
    """The stream stores the message, and its acknowledgement never comes."""
    parameters = f"stream=EVENTS&subjects={SUBJECTS},late.>&timeout=1"
    with ExitStack() as silence:

        async def heal() -> None:
            silence.close()
            proxy.cut_all()

        def swallow() -> None:
            silence.enter_context(proxy.swallow_server())

        login = server.url.rpartition("@")[0] or "nats://"
        at = "@" if login != "nats://" else ""
        async with open_sink(f"{login}{at}127.0.0.1:{proxy.port}?{parameters}") as sink:
            yield Stage(
                Before(sink, message.event_id, swallow),
                NatsBroker(server),
                heal,
                stores=True,
                exactly_once=True,
            )


@asynccontextmanager
async def rabbitmq_refuses(broker: RabbitMqBroker, _message: Message) -> AsyncGenerator[Stage]:
    """The exchange routes the message to no queue."""

    async def heal() -> None:
        await broker.bind("late.#")

    async with broker.open() as sink:
        yield Stage(sink, broker, heal)


@asynccontextmanager
async def rabbitmq_loses_the_answer(
    broker: RabbitMqBroker, proxy: TcpProxy, message: Message
) -> AsyncGenerator[Stage]:
    """The queue stores the message, and its confirmation never comes."""
    broker.parameters = "timeout=1"
    await broker.bind("late.#")
    async with losing_answers(broker, proxy, message) as stage:
        yield stage


@asynccontextmanager
async def kafka_refuses(cluster: MockKafka, message: Message) -> AsyncGenerator[Stage]:
    """The topic is not there."""
    from confluent_kafka import KafkaError

    cluster.refuse_topic(message.topic, KafkaError.UNKNOWN_TOPIC_OR_PART)

    async def heal() -> None:
        cluster.refuse_topic(message.topic, 0)

    broker = KafkaBroker(cluster.bootstrap, "timeout=1")
    async with broker.open() as sink:
        yield Stage(sink, broker, heal, across_topics=False)


@asynccontextmanager
async def kafka_loses_the_answer(cluster: MockKafka, message: Message) -> AsyncGenerator[Stage]:
    """The broker stores the message, and its acknowledgement never comes."""
    with ExitStack() as silence:

        async def heal() -> None:
            silence.close()

        def swallow() -> None:
            silence.enter_context(cluster.silent(1))

        broker = _HeardToRead(cluster.bootstrap, "timeout=1", silence=silence)
        async with broker.open() as sink:
            # A silent broker cannot say where a topic is: the sink must know before.
            vars(sink)["_client"]._producer.list_topics(message.topic, 5)
            failing = Before(sink, message.event_id, swallow)
            yield Stage(failing, broker, heal, stores=True, across_topics=False)


@dataclass
class _HeardToRead(KafkaBroker):
    """A broker that is silent to consumers, too: the silence ends when it is read back."""

    silence: ExitStack = field(default_factory=ExitStack)

    async def stored(self) -> list[Stored]:
        self.silence.close()
        return await super().stored()


@asynccontextmanager
async def redis_refuses(broker: RedisBroker, message: Message) -> AsyncGenerator[Stage]:
    """The message's topic is the key of another type."""
    broker.server.client.set(message.topic, "no stream")

    async def heal() -> None:
        broker.server.client.delete(message.topic)

    async with broker.open() as sink:
        yield Stage(sink, broker, heal, across_topics=False)


@asynccontextmanager
async def sqs_loses_the_answer(
    server: SqsServer, proxy: TcpProxy, message: Message
) -> AsyncGenerator[Stage]:
    """The queue stores the message, and its answer never comes."""
    queue = server.make_queue(fifo=True)
    broker = SqsBroker(server.endpoint, queue, proxy=proxy, parameters="timeout=1")
    # moto forgets the ids of messages that were taken: its queue stores this one twice.
    async with losing_answers(broker, proxy, message) as stage:
        yield stage


@asynccontextmanager
async def sns_loses_the_answer(
    broker: SnsBroker, proxy: TcpProxy, message: Message
) -> AsyncGenerator[Stage]:
    """The topic passes the message on, and its answer never comes."""
    broker.parameters = "timeout=1"
    async with losing_answers(broker, proxy, message) as stage:
        yield stage


@asynccontextmanager
async def losing_answers(
    broker: ReadableBroker, proxy: TcpProxy, message: Message, *, across_topics: bool = True
) -> AsyncGenerator[Stage]:
    """The broker stores the message, and its answer never comes."""
    with ExitStack() as silence:

        async def heal() -> None:
            silence.close()
            proxy.cut_all()

        def swallow() -> None:
            silence.enter_context(proxy.swallow_server())

        async with broker.open() as sink:
            failing = Before(sink, message.event_id, swallow)
            yield Stage(failing, broker, heal, stores=True, across_topics=across_topics)
