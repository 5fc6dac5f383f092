"""The sink ``kafka://``: Apache Kafka, or another broker that speaks its protocol.

The topic of a message is the Kafka topic. Its subject is the key, so all messages of
a subject are in one partition. `sink` publishes, and `runs` several messages of a key at a time.
`reports` turns delivery reports into answers, `client` keeps the producer and its callbacks, `url`
parses the URL, and `tokens` gets those of ``token=msk``.
Its parameters are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a message, or the first connection, may take |
| tls | as in ``config``, else no | ``yes``: use TLS and check the certificate of the broker |
| mechanism | as in ``config``, else PLAIN | that of the login in the URL, such as SCRAM-SHA-512 |
| password_file | | file with the password of ``USER@``, which is read again each second |
| ca, cert, key | | PEM files: authorities of the broker, and the client's certificate and key |
| token | | ``msk``: log in to Amazon MSK with IAM, over TLS (extra [msk]) |
| region | that of the host | AWS region of ``token=msk`` |
| config | | file with more settings of librdkafka, one ``name=value`` per line |

A URL and a config file that contradict each other are refused.
"""

from contextlib import AbstractAsyncContextManager

from dsql_outbox.outbox.errors import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink
from dsql_outbox.publisher.sinks.registry import connected

from .url import parse_kafka_url


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
    return connected(KafkaSink(settings))
