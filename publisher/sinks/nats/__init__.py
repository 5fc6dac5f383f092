"""The sink ``nats://``: NATS JetStream.

The message goes to the subject that is its topic, with the event's id as
``Nats-Msg-Id``: sent again within the stream's duplicate window, it is stored
once. Parameters of the URL:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a publish, or the first connection, may take |
| stream | | make this stream if it is missing |
| subjects | events.> | what that stream takes, separated by commas |
| creds | | file with the user's credentials |
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from dsql_outbox.outbox import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink

from .url import parse_nats_url

if TYPE_CHECKING:
    from .sink import JetStreamSink


def open_nats(url: str) -> AbstractAsyncContextManager[Sink]:
    """Connect to ``nats://[user:password@]host[:port][,host..]``; ``tls://`` insists on TLS.

    Raises `SettingsError` for a URL that breaks a rule and `MissingExtra`
    without the extra [nats]; on entering, `SettingsError` for a stream that
    cannot be made as asked and `SinkUnavailable` when no server answers within
    the timeout.
    """
    settings = parse_nats_url(url)
    try:
        from .sink import JetStreamSink  # noqa: PLC0415 - nats-py is an extra

        if settings.creds is not None:
            import_module("nkeys")  # nats-py signs with it, and would miss it later
    except ModuleNotFoundError as error:
        raise MissingExtra("nats", "the sink nats://") from error
    return _connected(JetStreamSink(settings))


@asynccontextmanager
async def _connected(sink: "JetStreamSink") -> AsyncGenerator[Sink]:
    try:
        await sink.connect()
        yield sink
    finally:
        await sink.close()
