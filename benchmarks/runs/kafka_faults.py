"""What is done to Kafka while runs are on their way."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from time import sleep
from typing import Final

from tests.support.brokers.apache_kafka import ApacheKafka
from tests.support.brokers.kafka_reader import read_partitions
from tests.support.brokers.readable_brokers import kafka_attributes

from .trial import Copy, Harm, Shape

_LIMIT: Final = 200_000
"""Bytes that a request for the topic of the fault "over the limit" may have."""
EXPIRING: Final = (
    "producer.id.expiration.ms=700",
    "producer.id.expiration.check.interval.ms=100",
)
"""Settings with which a broker soon forgets a producer that sends nothing."""


@dataclass
class Fault:
    """A fault: what is done, what the messages are like, and settings of topic and producer."""

    name: str
    harm: Harm
    shape: Shape
    topic: dict[str, str] = field(default_factory=dict[str, str])
    producer: dict[str, object] = field(default_factory=dict[str, object])


def faults(cluster: ApacheKafka, *, forgets: bool) -> Sequence[Fault]:
    """The faults. Each has a topic with one partition, and every node keeps a replica of it.

    A cluster that `forgets` has the settings `EXPIRING`, and one fault.
    """
    harms = _Harms(cluster)
    plain = {
        "killed": harms.killed,
        "stopped": harms.stopped,
        "network cut": harms.cut,
        "answers lost": harms.silenced,
        "restarted": harms.restarted,
    }
    if forgets:
        plain = {"producer id expires": harms.expired}
    found = [_fault(name, harm) for name, harm in plain.items()]
    if forgets:
        return found
    over = _fault("over the limit", harms.nothing)
    over.shape = Shape(over.shape.topic, most=20_000, big=_LIMIT + 1)
    over.topic["max.message.bytes"] = str(_LIMIT)
    over.producer["batch.size"] = _LIMIT // 2
    return [*found, over]


def _fault(name: str, harm: Callable[[str, Random], AbstractContextManager[None]]) -> Fault:
    topic = f"runs.{name.replace(' ', '-')}"
    return Fault(name, partial(harm, topic), Shape(topic))


def copies(cluster: ApacheKafka, topic: str) -> list[Copy]:
    """What is stored in the topic, in its order."""
    found: list[Copy] = []
    for message in read_partitions(cluster.bootstrap, topic=topic):
        headers = kafka_attributes(message.headers())
        found.append(Copy(headers["run"], headers["subject"], int(headers["number"])))
    return found


class _Harms:
    def __init__(self, cluster: ApacheKafka) -> None:
        self._cluster = cluster

    @contextmanager
    def nothing(self, topic: str, random: Random) -> Generator[None]:
        del topic, random  # the messages are the fault
        yield

    @contextmanager
    def killed(self, topic: str, random: Random) -> Generator[None]:
        self._cluster.kill(self._cluster.leader(topic))
        sleep(random.random() * 3)
        yield
        self._cluster.start()

    @contextmanager
    def restarted(self, topic: str, random: Random) -> Generator[None]:
        self._cluster.stop(self._cluster.leader(topic))
        sleep(random.random())
        yield
        self._cluster.start()

    @contextmanager
    def stopped(self, topic: str, random: Random) -> Generator[None]:
        with self._cluster.frozen(self._cluster.leader(topic)):
            sleep(random.random() * 8)  # below and above the deadline of the producer
        yield

    @contextmanager
    def cut(self, _: str, random: Random) -> Generator[None]:
        for proxy in self._cluster.proxies:
            proxy.pause_listening()
            proxy.cut_all(reset=random.random() < 0.5)
        sleep(random.random() * 5)
        for proxy in self._cluster.proxies:
            proxy.resume_listening()
        yield

    @contextmanager
    def silenced(self, _: str, random: Random) -> Generator[None]:
        """Requests arrive, their answers do not; then the connections end."""
        for proxy in self._cluster.proxies:
            proxy.silence_all()
        sleep(random.random() * 5)
        for proxy in self._cluster.proxies:
            proxy.cut_all()
        yield

    @contextmanager
    def expired(self, _: str, random: Random) -> Generator[None]:
        """Answers are lost, and then nothing is sent until the broker forgets the producer."""
        for proxy in self._cluster.proxies:
            proxy.silence_all()
            proxy.pause_listening()
        sleep(0.2 * random.random())
        for proxy in self._cluster.proxies:
            proxy.cut_all()
        sleep(0.9 + random.random())
        for proxy in self._cluster.proxies:
            proxy.resume_listening()
        yield
