"""The sink ``redis://``: Redis Streams, of Redis or Valkey.

The stream of a message is its topic. An entry has the payload, the dedupe id, and the headers of
CloudEvents in binary mode. A run is a transaction (MULTI, EXEC): the server stores all of it or
nothing. `sink` publishes, `refusal` says what an error of the server blames, `url` parses the URL.
Its parameters are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a publish, or the first connection, may take |
| field | payload | the field of an entry that has the payload |
| maxlen | | keep about this many entries of each stream, and delete older ones |
| fsync | no | `yes`: a message is delivered when the server has synced it to its file (WAITAOF) |
| replicas | 0 | a message is delivered when this many replicas have it (WAIT) |
| password_file | | file with the password, which is read again for each login |
| sentinel | | the name by which Sentinels know the server; the hosts are those of the Sentinels |
| sentinel_password_file | | file with the password of the Sentinels, if they have one |
| ca | the system's | PEM file with the authorities that may sign the server's certificate |
| cert, key | | PEM files with the client's certificate and its key |
"""

from contextlib import AbstractAsyncContextManager

from dsql_outbox.outbox.errors import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink
from dsql_outbox.publisher.sinks.registry import connected

from .url import parse_redis_url


def open_redis(url: str) -> AbstractAsyncContextManager[Sink]:
    """Connect to ``redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]``; ``rediss://`` requires TLS.

    Raises `SettingsError` for a malformed URL or file, and `MissingExtra` without the
    extra [redis]. On entry it raises `SettingsError` if the server's certificate is not trusted,
    and `SinkUnavailable` when the server does not answer within the timeout, or refuses the login
    or a transaction.
    """
    settings = parse_redis_url(url)
    try:
        from .sink import RedisSink  # noqa: PLC0415 - redis-py is an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("redis", "the sink redis://") from error
    return connected(RedisSink(settings))
