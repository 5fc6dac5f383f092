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
from contextlib import asynccontextmanager

from dsql_outbox.outbox import MissingExtra

from ._nats_url import parse_nats_url
from ._port import Sink


@asynccontextmanager
async def open_nats(url: str) -> AsyncGenerator[Sink]:
    """Connect to ``nats://[user:password@]host[:port][,host..]``; ``tls://`` insists on TLS.

    Raises `SettingsError` for a URL that breaks a rule or a stream that cannot
    be made as asked, `MissingExtra` without the extra [nats], and
    `SinkUnavailable` when no server answers within the timeout.
    """
    settings = parse_nats_url(url)
    try:
        from ._jetstream import JetStreamSink  # noqa: PLC0415 - nats-py is an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("nats", "the sink nats://") from error
    sink = JetStreamSink(settings)
    try:
        await sink.connect()
        yield sink
    finally:
        await sink.close()
