"""Open the sink of a URL: the scheme selects an entry point."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from typing import Final, Protocol, cast

from dsql_outbox.outbox.errors import OutboxError, SettingsError, SinkUnavailable
from dsql_outbox.outbox.redaction import error_text, redacted, system_error

from .port import Sink

SINK_GROUP: Final = "dsql_outbox.sinks"
"""The group of entry points; the name of an entry is the scheme of its URLs."""

SinkOpener = Callable[[str], AbstractAsyncContextManager[Sink]]
"""The type of an entry point: it takes a URL and opens the sink for an ``async with`` block."""


def open_sink(url: str) -> AbstractAsyncContextManager[Sink]:
    """The sink of a URL, as an asynchronous context manager that opens and closes it.

    The scheme selects an entry point of the group ``dsql_outbox.sinks``, of this
    package or another. Raises `SettingsError` for an unknown scheme or a malformed
    URL, and `MissingExtra` if the client of the broker is not installed. On entry the
    context manager raises `SettingsError` or `SinkUnavailable`. The latter also stands for an
    error of the client that the sink did not expect, as of an answer that is nonsense.

        >>> import asyncio
        >>> async def system() -> str:
        ...     async with open_sink("jsonl:/dev/null") as sink:
        ...         return sink.system
        >>> asyncio.run(system())
        'jsonl'
    """
    scheme = url.partition(":")[0]
    found = list(installed_sinks().select(name=scheme))
    if not found:
        hidden = "@" in url and "://" not in url  # the text before the colon may be a login
        kind = "this URL" if hidden else f"URLs {scheme}:"
        raise SettingsError(
            f"no sink for {kind}, there are {known_schemes()}; docs/writing-a-sink.md says how to "
            "add one"
        )
    return _opened(cast("SinkOpener", found[0].load())(url), redacted(url))


@asynccontextmanager
async def _opened(sink: AbstractAsyncContextManager[Sink], place: str) -> AsyncGenerator[Sink]:
    """Open a sink. An error that it did not expect says that the broker cannot be used now."""
    async with AsyncExitStack() as opened:
        try:
            entered = await opened.enter_async_context(sink)
        except OutboxError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the client makes of an answer
            unusable = SinkUnavailable(f"{place} cannot be opened: {error_text(error)}")
            raise unusable.with_traceback(error.__traceback__) from system_error(error)
        yield entered


class ConnectedSink(Sink, Protocol):
    """A sink that connects before its first message."""

    async def connect(self) -> None:
        """Connect to the broker. Raises `SettingsError` or `SinkUnavailable`."""
        ...

    async def close(self) -> None:
        """End the connection, also one that was not made."""
        ...


@asynccontextmanager
async def connected(sink: ConnectedSink) -> AsyncGenerator[Sink]:
    """Connect a sink, and close it in the end."""
    try:
        await sink.connect()
        yield sink
    finally:
        await sink.close()


def known_schemes() -> str:
    """The schemes of all sinks, as in ``jsonl:, nats:, stdout:``; some may lack their extra."""
    return ", ".join(f"{name}:" for name in sorted(installed_sinks().names))


@cache
def installed_sinks() -> EntryPoints:
    """The entry points of all sinks; read once, as that opens files of each installed package."""
    return entry_points(group=SINK_GROUP)
