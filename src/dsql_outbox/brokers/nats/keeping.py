"""How JetStream keeps the messages of a stream: replicas, storage, and when it writes."""

from collections.abc import Collection
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import PersistMode, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from dsql_outbox.publisher.sinks.port import Keeping

_SAFE: Final = 3
"""Replicas of which one may fail while two acknowledge."""


async def stream_keepings(
    client: Client, seconds: float, stream: str | None, topics: Collection[str]
) -> list[Keeping]:
    """How the streams of these topics, and this one, keep messages."""
    jetstream: Any = client.jetstream(  # pyright: ignore[reportUnknownMemberType]
        timeout=seconds
    )
    names = [] if stream is None else [stream]
    found: list[Keeping] = []
    try:
        for topic in sorted(topics):
            try:
                names.append(await jetstream.find_stream_name_by_subject(topic))
            except NotFoundError:  # its messages are not delivered either
                continue
        for name in dict.fromkeys(names):
            info = await jetstream.stream_info(name)
            found.append(keeping_of(name, info.config))
    except NatsTimeoutError:  # so does a client wait that has no right
        text = "JetStream does not say: does this client lack the right to $JS.API.STREAM.NAMES "
        found.append(Keeping("its streams", f"{text}and $JS.API.STREAM.INFO.*?", is_known=False))
    return found


def keeping_of(name: str, config: StreamConfig) -> Keeping:
    """How a stream of this name and configuration keeps messages."""
    replicas = config.num_replicas or 1
    storage = "memory" if config.storage == StorageType.MEMORY else "file"
    is_async = config.persist_mode == PersistMode.ASYNC
    text = f"{replicas} replica{'' if replicas == 1 else 's'}, {storage} storage"
    if is_async:
        text += ", asynchronous persistence"
    return Keeping(f"stream {name}", text, _remedy(name, replicas, storage, is_async=is_async))


def _remedy(name: str, replicas: int, storage: str, *, is_async: bool) -> str | None:
    if storage == "memory":
        return "a restart takes all of them: make the stream again with file storage"
    if is_async:
        return "they are acknowledged before they are written: make the stream again without it"
    if replicas < _SAFE:
        return (
            "a power cut takes what the server has not synced, up to two minutes by default: use "
            f"`nats stream edit {name} --replicas=3`, or `sync_interval: always` on the server"
        )
    return None
