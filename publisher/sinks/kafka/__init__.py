"""The sink ``kafka://``: Apache Kafka, or another broker that speaks its protocol.

The message goes to the topic that is its topic, with the subject as key, so one
subject is in one partition. Parameters of the URL:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a message, or the first connection, may take |
| tls | no | ``yes``: speak TLS, and check the broker's certificate |
| mechanism | PLAIN | SASL mechanism of the login in the URL, as SCRAM-SHA-512 |
| config | | file with more settings of librdkafka, a line ``name=value`` each |
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
    """Connect to ``kafka://[user:password@]host[:port][,host..]``.

    Raises `SettingsError` for a URL that breaks a rule or names a setting that
    librdkafka refuses, and `MissingExtra` without the extra [kafka]; on
    entering, `SinkUnavailable` when no broker answers within the timeout.
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
