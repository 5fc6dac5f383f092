"""Brokers that sinks write to and tests read back.

The one in memory holds the suite itself to account.
"""

import json
import os
import resource
from base64 import b64decode
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

from anyio import to_thread
from tests.support.brokers.proxied_broker import ProxiedBroker
from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.outbox.message import TRACE_HEADERS
from dsql_outbox.publisher import Sink, open_sink
from dsql_outbox.publisher.sinks import attributes
from dsql_outbox.testing import MemorySink
from dsql_outbox.testing.sink_contract import ReadableBroker, Stored

from .kafka_mock import MockKafka
from .kafka_reader import Ends, read_all
from .sqs_server import SqsServer, receive_all

SUBJECTS = "events.>"


# --- in memory -------------------------------------------------------------------------


@dataclass
class MemoryBroker(ReadableBroker):
    """The sink for users' tests."""

    sink: MemorySink = field(default_factory=MemorySink)

    @property
    def url(self) -> str:
        return "memory:"

    @contextmanager
    def outage(self) -> Generator[None]:
        self.sink.down = True
        yield
        self.sink.down = False

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Sink]:
        yield self.sink

    async def stored(self) -> list[Stored]:
        return [Stored(m.topic, m.headers, m.payload) for m in self.sink.messages]


# --- lines -----------------------------------------------------------------------------


def read_lines(data: bytes) -> list[Stored]:
    """What a reader makes of the lines: one that is torn is passed over."""
    return [stored for line in data.split(b"\n") if (stored := _read_line(line))]


def _read_line(line: bytes) -> Stored | None:
    try:
        read = json.loads(line)
    except ValueError:
        return None
    headers = attributes(read.pop("headers"), "ce-")
    assert read.pop("key") == headers["subject"]
    topic = read.pop("topic")
    ((member, text),) = read.items()
    payload = {"payload": str.encode, "payload_base64": b64decode}[member](text)
    return Stored(topic, headers, payload)


@dataclass
class FileBroker(ReadableBroker):
    """A file of lines."""

    path: Path

    @property
    def url(self) -> str:
        return f"jsonl:{self.path}"

    async def stored(self) -> list[Stored]:
        return read_lines(self.path.read_bytes())


@dataclass
class StdoutBroker(FileBroker):
    """Standard output, led into a file while the sink is open."""

    @property
    def url(self) -> str:
        return "stdout:"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Sink]:
        with self.path.open("ab") as file, stdout_to(file.fileno()):
            async with open_sink(self.url) as sink:
                yield sink


@contextmanager
def stdout_to(descriptor: int) -> Generator[None]:
    """Let descriptor 1 be `descriptor` for a while."""
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextmanager
def files_of_at_most(size: int) -> Generator[None]:
    """Let every write beyond `size` bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- NATS ------------------------------------------------------------------------------


class NatsPlace(Protocol):
    """Where a NATS server is."""

    @property
    def url(self) -> str:
        """Its URL, with the login if it wants one."""
        ...


@dataclass
class NatsBroker(ProxiedBroker):
    """A stream of a NATS server, read back through a client of its own."""

    server: NatsPlace
    parameters: str = f"stream=EVENTS&subjects={SUBJECTS}"
    proxy: TcpProxy | None = None
    deduplicates = True

    @property
    def url(self) -> str:
        url = self.server.url
        if self.proxy:
            url = url.replace(f":{urlsplit(url).port}", f":{self.proxy.port}")
        return f"{url}?{self.parameters}"

    async def stored(self) -> list[Stored]:
        async with self.jetstream() as jetstream:
            state = (await jetstream.stream_info("EVENTS")).state
            numbers = range(state.first_seq, state.first_seq + state.messages)
            found = [await jetstream.get_msg("EVENTS", seq=n) for n in numbers]
        return [Stored(m.subject, attributes(m.headers or {}, "ce-"), m.data or b"") for m in found]

    @asynccontextmanager
    async def jetstream(self) -> AsyncGenerator[Any]:
        """A client of its own, to look and to set up."""
        import nats

        client: Any = await nats.connect(self.server.url)  # pyright: ignore[reportUnknownMemberType]
        try:
            yield client.jetstream()
        finally:
            await client.close()


# --- Kafka -----------------------------------------------------------------------------


@dataclass
class KafkaBroker(ReadableBroker):
    """A Kafka cluster, read back by a consumer; with `mock`, one of a single broker."""

    bootstrap: str
    parameters: str = "timeout=5"
    behind: Ends = field(default_factory=dict)
    """Where what is read back begins."""
    mock: MockKafka | None = None

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}?{self.parameters}"

    def outage(self) -> AbstractContextManager[None] | None:
        return self.mock.down(1) if self.mock else None

    async def stored(self) -> list[Stored]:
        found = await to_thread.run_sync(read_all, self.bootstrap, self.behind)
        return [from_kafka(message) for message in found]


def from_kafka(message: Any) -> Stored:
    """A message as a consumer finds it."""
    headers = kafka_attributes(message.headers() or [])
    return Stored(message.topic() or "", headers, message.value() or b"")


def kafka_attributes(headers: Any) -> dict[str, str]:
    """What a consumer makes of a message's headers, by section 3.2.3 of Kafka's binding."""
    read = {name: value.decode() for name, value in headers}
    plain = {name: read[name] for name in TRACE_HEADERS if name in read}
    own = {name[3:]: value for name, value in read.items() if name.startswith("ce_")}
    return plain | own | {"datacontenttype": read["content-type"]}


# --- AWS -------------------------------------------------------------------------------


@dataclass
class SqsBroker(ProxiedBroker):
    """A queue of an SQS, standard or FIFO by its name, read back until it is empty."""

    endpoint: str
    queue: str
    proxy: TcpProxy | None = None
    parameters: str = "timeout=20"  # moto takes seconds on a busy machine
    found: list[Any] = field(default_factory=list)
    many = 30  # moto takes seconds for 600
    takes_empty = False

    def __post_init__(self) -> None:
        self.ordered = self.deduplicates = self.queue.endswith(".fifo")

    @property
    def url(self) -> str:
        return f"sqs://{self.queue}?{self.place}"

    @property
    def place(self) -> str:
        """The parameters of URLs: the region, and the way through the proxy if there is one."""
        endpoint = f"http://127.0.0.1:{self.proxy.port}" if self.proxy else self.endpoint
        return f"region=eu-west-1&endpoint={endpoint}&{self.parameters}"

    async def received(self) -> list[Any]:
        """The messages as SQS gives them."""
        self.found += await to_thread.run_sync(receive_all, self.endpoint, self.queue)
        return self.found

    async def stored(self) -> list[Stored]:
        return [from_sqs(message) for message in await self.received()]


def from_sqs(message: Any) -> Stored:
    read = {name: found["StringValue"] for name, found in message["MessageAttributes"].items()}
    headers = json.loads(read["cloudevent"])
    headers |= {name: read[name] for name in TRACE_HEADERS if name in read}
    encoded = read.get("content-transfer-encoding")
    payload = b64decode(message["Body"]) if encoded == "base64" else message["Body"].encode()
    return Stored(read.get("topic", ""), headers, payload)


@dataclass
class SnsBroker(SqsBroker):
    """A topic of an SNS, read back from a queue that subscribes to it with raw delivery."""

    topic: str = ""
    max_payload = (256 << 10) - (4 << 10)

    @classmethod
    def make(cls, server: SqsServer, proxy: TcpProxy, *, fifo: bool = False) -> Self:
        queue = server.make_queue(fifo=fifo)
        return cls(server.endpoint, queue, proxy, topic=server.make_topic(queue))

    @property
    def url(self) -> str:
        return f"sns://{self.topic}?{self.place}"


@dataclass
class EventBridgeBroker(SqsBroker):
    """A bus of an EventBridge, read back from a queue that a rule sends all events to."""

    bus: str = ""
    exact = False
    takes_empty = True

    @classmethod
    def make(cls, server: SqsServer, proxy: TcpProxy) -> Self:
        queue = server.make_queue()
        return cls(server.endpoint, queue, proxy, bus=server.make_bus(queue))

    @property
    def url(self) -> str:
        return f"eventbridge://{self.bus}?{self.place}"

    async def stored(self) -> list[Stored]:
        return [from_eventbridge(message) for message in await self.received()]


def from_eventbridge(message: Any) -> Stored:
    detail = json.loads(message["Body"])["detail"]
    del detail["dedupeid"]
    if "data_base64" in detail:
        payload = b64decode(detail.pop("data_base64"))
    elif detail["datacontenttype"].partition(";")[0].endswith("json"):
        payload = json.dumps(detail.pop("data")).encode()
    else:
        payload = detail.pop("data").encode()
    return Stored(detail.pop("topic"), detail, payload)
