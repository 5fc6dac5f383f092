"""The sink ``rabbitmq://`` or ``amqp://``: an exchange of RabbitMQ.

The routing key of a message is its topic. A message is delivered when RabbitMQ confirmed it.
`sink` publishes. `call` has the messages of one call, and `confirmation` says what RabbitMQ's
answers mean. `connection` keeps the connection and its channels, `doubts` says which messages go
alone, `transport` is the socket below it, `envelope` makes what goes with a payload, `properties`
are those of AMQP that a map may set, and `url` parses the URL. Its parameters are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a publish, or the first connection, may take |
| exchange | amq.topic | the exchange; empty for the default one, where a topic is a queue's name |
| mandatory | yes | `no`: a message that no queue gets is lost, and counts as delivered |
| password_file | | file with the password of ``USER@``, which is read again for each login |
| ca | the system's | PEM file with the authorities that may sign the server's certificate |
| cert, key | | PEM files with the client's certificate and its key |
"""

from contextlib import AbstractAsyncContextManager

from dsql_outbox.outbox.errors import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink
from dsql_outbox.publisher.sinks.registry import connected

from .properties import RabbitMqProperties
from .url import parse_rabbitmq_url

__all__ = ["RabbitMqProperties", "open_rabbitmq"]


def open_rabbitmq(url: str) -> AbstractAsyncContextManager[Sink]:
    """Connect to ``rabbitmq://[user:password@]host[:port][,host..]``; ``rabbitmqs://`` is TLS.

    ``amqp://`` and ``amqps://``, as providers hand them out, mean the same.

    Raises `SettingsError` for a malformed URL or file, and `MissingExtra` without the
    extra [rabbitmq]. On entry it raises `SettingsError` for a certificate that is not trusted,
    and `SinkUnavailable` when no server answers within the timeout or takes the login.
    """
    settings = parse_rabbitmq_url(url)
    try:
        from .sink import RabbitMqSink  # noqa: PLC0415 - aiormq is an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("rabbitmq", "the sink rabbitmq://") from error
    return connected(RabbitMqSink(settings))
