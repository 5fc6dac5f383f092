"""The sink ``kafka://``: Apache Kafka, or another broker that speaks its protocol.

The topic of a message is the Kafka topic. Its subject is the key, so all messages of
a subject are in one partition. `sink` publishes, `client` keeps the producer and
its callbacks, `url` parses the URL.
Its parameters are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a message, or the first connection, may take |
| tls | no | ``yes``: use TLS and check the certificate of the broker |
| mechanism | PLAIN | SASL mechanism of the login in the URL, such as SCRAM-SHA-512 |
| password_file | | file with the password of ``USER@``, which is read again each second |
| ca, cert, key | | PEM files: authorities of the broker, and the client's certificate and key |
| token | | ``msk``: log in to Amazon MSK with IAM, over TLS (extra [msk]) |
| region | that of the host | AWS region of ``token=msk`` |
| config | | file with more settings of librdkafka, one ``name=value`` per line |
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from dsql_outbox.outbox import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink

from .url import parse_kafka_url

if TYPE_CHECKING:
    from .sink import KafkaSink


def open_kafka(url: str) -> AbstractAsyncContextManager[Sink]:
    """Connect to ``kafka://[user[:password]@]host[:port][,host..]``.

    Raises `SettingsError` for a malformed URL or config file, and `MissingExtra`
    without the extra [kafka]. On entry it raises `SettingsError` for a setting that
    librdkafka refuses, and `SinkUnavailable` when no broker answers within the
    timeout.
    """
    settings = parse_kafka_url(url)
    try:
        from .sink import KafkaSink  # noqa: PLC0415 - confluent-kafka is an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("kafka", "the sink kafka://") from error
    return _connected(KafkaSink(settings))


@asynccontextmanager
async def _connected(sink: "KafkaSink") -> AsyncGenerator[Sink]:
    try:
        await sink.connect()
        yield sink
    finally:
        await sink.close()
