"""RabbitMQ: a server that dies, stops, hangs or has an alarm, and topics that it refuses."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import Timer
from typing import Any, Final

from aio_pika.abc import AbstractChannel
from benchmarks.nemesis.check import Delivery
from pamqp.common import FieldTable
from tests.support.brokers.rabbitmq_broker import client, from_rabbitmq, taken
from tests.support.brokers.rabbitmq_server import RabbitMqServer

from .place import CARS, VANS, Fault, delivery

_EXCHANGE: Final = "shop"
_QUEUES: Final = {CARS: "cars", VANS: "vans"}
_USER: Final = "publisher"
_SOON: Final = 1.5  # seconds; events are written for longer
_QUORUM: Final[FieldTable] = {"x-queue-type": "quorum"}


class RabbitMqPlace:
    """A server with an exchange and two quorum queues; the one of the vans is not bound at first.

    `make_faults` says which faults it goes through.
    """

    def __init__(self, server: RabbitMqServer, make_faults: "Faults") -> None:
        self.server = server
        self._make_faults = make_faults
        self.sink = f"rabbitmq://{_USER}:secret@{server.host}?exchange={_EXCHANGE}&timeout=3"

    def prepare(self) -> None:
        self.server.ctl("add_user", _USER, "secret")
        self.server.ctl("set_permissions", _USER, "", ".*", "")
        for name in _QUEUES.values():
            self.do(partial(_declare, name))
        self.declare()
        self.bind(CARS)

    def faults(self) -> Sequence[Fault]:
        return self._make_faults(self)

    def delivered(self) -> list[Delivery]:
        return [
            delivery(from_rabbitmq(message))
            for name in _QUEUES.values()
            for message in self.do(partial(taken, queue=name))
        ]

    def declare(self) -> None:
        """Make the exchange."""
        self.do(lambda channel: channel.declare_exchange(_EXCHANGE, "topic", durable=True))

    def bind(self, topic: str) -> None:
        """Let the topic's queue get its messages."""
        self.do(partial(_bind, topic))

    @contextmanager
    def unroutable(self) -> Generator[None]:
        """No queue takes the vans, as at the beginning."""
        yield
        self.bind(VANS)

    @contextmanager
    def missing_exchange(self) -> Generator[None]:
        self.do(lambda channel: channel.exchange_delete(_EXCHANGE))
        yield
        self.declare()
        for topic in _QUEUES:
            self.bind(topic)

    @contextmanager
    def no_right(self) -> Generator[None]:
        """The publishers' user may publish the cars only."""
        topic = CARS.replace(".", r"\.")
        self.server.ctl("set_topic_permissions", _USER, _EXCHANGE, f"^{topic}$", "")
        yield
        self.server.ctl("clear_topic_permissions", _USER, _EXCHANGE)

    @contextmanager
    def full_queue(self) -> Generator[None]:
        """The queue of the vans is full, and rejects."""
        name, policy = _QUEUES[VANS], '{"max-length":1,"overflow":"reject-publish"}'
        self.server.ctl("set_policy", "full", f"^{name}$", policy, "--apply-to", "queues")
        yield
        self.server.ctl("clear_policy", "full")

    def silent_queue(self) -> AbstractContextManager[None]:
        """The queue of the vans has no leader that answers, as without a majority."""
        return self.server.silent_queue(_QUEUES[VANS])

    @contextmanager
    def killed(self) -> Generator[None]:
        """The server dies while messages are on their way."""
        soon = Timer(_SOON, self.server.kill)
        soon.start()
        yield
        soon.join()
        self.server.start()

    def do(self, change: Callable[[AbstractChannel], Awaitable[Any]]) -> Any:
        """Do something on a channel of an administrator."""
        return asyncio.run(self._do(change))

    async def _do(self, change: Callable[[AbstractChannel], Awaitable[Any]]) -> Any:
        async with client(self.server.host) as channel:
            return await change(channel)


Faults = Callable[[RabbitMqPlace], Sequence[Fault]]
"""Makes the faults of a place."""


def all_faults(place: RabbitMqPlace) -> Sequence[Fault]:
    """Each fault once."""
    return [
        Fault("unroutable", place.unroutable, VANS),
        Fault("missing exchange", place.missing_exchange, CARS),
        Fault("no right", place.no_right, VANS),
        Fault("full queue", place.full_queue, VANS),
        Fault("silent queue", place.silent_queue, VANS),
        Fault("killed", place.killed),
        Fault("stopped", place.server.app_stopped),
        Fault("hangs", place.server.frozen),
        Fault("memory alarm", place.server.memory_alarm),
        Fault("disk alarm", place.server.disk_alarm),
    ]


def kills(place: RabbitMqPlace) -> Sequence[Fault]:
    """The server is killed five times; a publisher is killed each time, and four times alone."""
    alone = Fault("publisher killed", nullcontext)
    killed = Fault("killed", place.killed)
    return [*[killed, alone] * 4, killed]


async def _declare(name: str, channel: AbstractChannel) -> None:
    await channel.declare_queue(name, durable=True, arguments=_QUORUM)


async def _bind(topic: str, channel: AbstractChannel) -> None:
    queue = await channel.get_queue(_QUEUES[topic], ensure=False)
    await queue.bind(_EXCHANGE, topic)
