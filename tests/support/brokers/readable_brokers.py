"""Brokers that sinks write to and tests read back.

The one in memory holds the suite itself to account.
"""

import json
import os
import resource
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import nats
from anyio import to_thread

from dsql_outbox.outbox import TRACE_HEADERS, Message
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import (
    Answer,
    Sink,
    attributes,
)
from dsql_outbox.testing import MemorySink

from .kafka_broker import Ends, read_all
from .sqs_server import receive_all

SUBJECTS = "events.>"


@dataclass(frozen=True)
class Stored:
    """A message as a consumer finds it."""

    topic: str
    headers: dict[str, str]
    """Attributes and trace headers under their plain names, read by the broker's own binding."""
    payload: bytes

    @property
    def event_id(self) -> UUID:
        """Whose event it is."""
        return UUID(self.headers["id"])


class Broker(Protocol):
    """Where a sink writes to."""

    @property
    def url(self) -> str:
        """The URL for `open_sink`."""
        ...

    def open(self) -> AbstractAsyncContextManager[Sink]:
        """Open the sink."""
        ...

    async def stored(self) -> list[Stored]:
        """Every message that is there, in the order in which it came."""
        ...


# --- in memory -------------------------------------------------------------------------


@dataclass
class MemoryBroker:
    """The sink for users' tests."""

    sink: MemorySink = field(default_factory=MemorySink)
    url: str = "memory:"

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
    assert set(read) == {"topic", "key", "headers", "payload"}
    headers = attributes(read["headers"], "ce-")
    assert read["key"] == headers["subject"]
    return Stored(read["topic"], headers, read["payload"].encode())


@dataclass
class FileBroker:
    """A file of lines."""

    path: Path

    @property
    def url(self) -> str:
        return f"jsonl:{self.path}"

    def open(self) -> AbstractAsyncContextManager[Sink]:
        return open_sink(self.url)

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
class NatsBroker:
    """A stream of a NATS server, read back through a client of its own."""

    server: NatsPlace
    parameters: str = f"stream=EVENTS&subjects={SUBJECTS}"

    @property
    def url(self) -> str:
        return f"{self.server.url}?{self.parameters}"

    def open(self) -> AbstractAsyncContextManager[Sink]:
        return open_sink(self.url)

    async def stored(self) -> list[Stored]:
        async with self.jetstream() as jetstream:
            state = (await jetstream.stream_info("EVENTS")).state
            numbers = range(state.first_seq, state.first_seq + state.messages)
            found = [await jetstream.get_msg("EVENTS", seq=n) for n in numbers]
        return [Stored(m.subject, attributes(m.headers or {}, "ce-"), m.data or b"") for m in found]

    @asynccontextmanager
    async def jetstream(self) -> AsyncGenerator[Any]:
        """A client of its own, to look and to set up."""
        client: Any = await nats.connect(self.server.url)  # pyright: ignore[reportUnknownMemberType]
        try:
            yield client.jetstream()
        finally:
            await client.close()


# --- Kafka -----------------------------------------------------------------------------


@dataclass
class KafkaBroker:
    """A Kafka broker or cluster, read back by a consumer."""

    bootstrap: str
    parameters: str = "timeout=5"
    behind: Ends = field(default_factory=dict)
    """Where what is read back begins."""

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}?{self.parameters}"

    def open(self) -> AbstractAsyncContextManager[Sink]:
        return open_sink(self.url)

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


# --- SQS -------------------------------------------------------------------------------


@dataclass
class SqsBroker:
    """A queue of an SQS, standard or FIFO by its name, read back until it is empty."""

    endpoint: str
    queue: str
    port: int | None = None
    """Where the sink calls instead, if it is another port of 127.0.0.1."""
    parameters: str = "timeout=20"  # moto takes seconds on a busy machine
    found: list[Any] = field(default_factory=list)

    @property
    def url(self) -> str:
        endpoint = f"http://127.0.0.1:{self.port}" if self.port else self.endpoint
        return f"sqs://{self.queue}?region=eu-west-1&endpoint={endpoint}&{self.parameters}"

    def open(self) -> AbstractAsyncContextManager[Sink]:
        return open_sink(self.url)

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
    return Stored(read.get("topic", ""), headers, message["Body"].encode())


# --- harm ------------------------------------------------------------------------------


@dataclass
class Before:
    """Does something once, right before a sink is given a certain message."""

    inner: Sink
    event_id: UUID
    action: Callable[[], None] | None

    def __post_init__(self) -> None:
        self.system = self.inner.system

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if self.action and any(message.event_id == self.event_id for message in messages):
            self.action()
            self.action = None
        await self.inner.publish(messages, answer)


@dataclass
class Stage:
    """A sink that fails at one message until it is healed."""

    sink: Sink
    broker: Broker
    heal: Callable[[], Awaitable[None]]
    stores: bool = False
    """Whether the message is stored all the same, and only its answer is lost."""
    exactly_once: bool = False
    """Whether the broker knows a message again."""
    across_topics: bool = True
    """Whether the broker keeps the order of messages of different topics."""


OpenStage = Callable[[Message], AbstractAsyncContextManager[Stage]]
"""Opens a sink that fails at the message, whose topic is below ``late.``."""
