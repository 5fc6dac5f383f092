"""A broker that runs already, which the contract suite is to run against alone."""

import os
from contextlib import suppress
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import anyio

from dsql_outbox.publisher import open_sink
from dsql_outbox.testing.sink_contract import deliver, new_message

from .kafka_reader import read_ends
from .readable_brokers import KafkaBroker, NatsBroker
from .redis_server import RedisServer
from .sqs_server import SqsServer

VARIABLE: Final = "DSQL_OUTBOX_TEST_BROKER"
URL: Final = os.environ.get(VARIABLE, "")
"""Its ``kafka://``, ``nats://``, ``rabbitmq://`` or ``redis://`` URL, or the ``http://`` of an SQS.

None by default.
"""

_SCHEME: Final = urlsplit(URL).scheme

BROKERS: Final = {
    "": [
        "memory",
        "jsonl",
        "stdout",
        "nats",
        "kafka",
        "redis",
        "sqs",
        "sqs_fifo",
        "sns",
        "sns_fifo",
        "eventbridge",
    ],
    "http": ["sqs", "sqs_fifo"],
}.get(_SCHEME, [_SCHEME])
"""The brokers that the suite runs against. RabbitMQ comes from no wheel: it needs a URL."""


class RunningNats(NamedTuple):
    """A server that is not ours to start and end."""

    url: str


class RunningSqs(SqsServer):
    """An SQS that is not ours to start and end."""

    def __init__(self, endpoint: str) -> None:
        super().__init__()
        port = urlsplit(endpoint).port
        assert port is not None
        self.port = port


class RunningRedis(RedisServer):
    """A server that is not ours to start and end."""

    def __init__(self) -> None:
        super().__init__(port=urlsplit(URL).port or 6379)


def running_nats() -> RunningNats:
    """The server, with an empty stream that takes messages."""
    anyio.run(_renew_the_stream)
    return RunningNats(URL)


def running_kafka() -> KafkaBroker:
    """The cluster; what earlier tests left there is not read back."""
    bootstrap = urlsplit(URL).netloc
    return KafkaBroker(bootstrap, behind=read_ends(bootstrap))


async def _renew_the_stream() -> None:
    """Make the stream as a sink does, and wait until it has a leader that this server knows."""
    import nats
    from nats.js.errors import NotFoundError

    client: Any = await nats.connect(URL)  # pyright: ignore[reportUnknownMemberType]
    try:
        jetstream = client.jetstream()
        with suppress(NotFoundError):
            await jetstream.delete_stream("EVENTS")
        async with open_sink(NatsBroker(RunningNats(URL)).url) as sink:
            await deliver(sink, [new_message()])
        await jetstream.purge_stream("EVENTS")
    finally:
        await client.close()
