"""The sink ``nats://``: NATS JetStream.

The NATS subject of a message is its topic. The header ``Nats-Msg-Id`` is its dedupe id, so a
message that is sent again within the duplicate window of the stream is stored once. `sink`
publishes. `call` has the runs of one call, and `batches` says which of them are atomic batches.
`frame` is a message on its way, `acknowledgement` the answer, `client` keeps the connection, `url`
parses the URL. Its parameters are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a publish, or the first connection, may take |
| stream | | create this stream if it is missing |
| subjects | events.> | the subjects of that stream, separated by commas |
| replicas | 1 | the replicas of that stream, 1 to 5 |
| creds | | file with the user's credentials |
| nkey | | file with the seed of the user's nkey |
| token_file | | file with the token, which is read again for each login |
| ca | the system's | PEM file with the authorities that may sign the server's certificate |
| cert, key | | PEM files with the client's certificate and its key |
"""

from contextlib import AbstractAsyncContextManager
from importlib import import_module

from dsql_outbox.outbox.errors import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink
from dsql_outbox.publisher.sinks.registry import connected

from .url import parse_nats_url


def open_nats(url: str) -> AbstractAsyncContextManager[Sink]:
    """Connect to ``nats://[user:password@]host[:port][,host..]``; ``tls://`` requires TLS.

    Raises `SettingsError` for a malformed URL or file, and `MissingExtra` without the
    extra [nats]. On entry it raises `SettingsError` for a stream that cannot be created as
    requested, and `SinkUnavailable` when no server answers within the timeout.
    """
    settings = parse_nats_url(url)
    try:
        from .sink import JetStreamSink  # noqa: PLC0415 - nats-py is an extra

        if settings.creds is not None or settings.nkey is not None:
            import_module("nkeys")  # nats-py signs with it, and would only fail later
    except ModuleNotFoundError as error:
        raise MissingExtra("nats", "the sink nats://") from error
    return connected(JetStreamSink(settings))
