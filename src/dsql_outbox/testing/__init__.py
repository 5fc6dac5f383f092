"""For tests: real servers from wheels, proxies that break things on purpose, a sink in memory."""

from ._embedded import EmbeddedPostgres
from ._faults import Held
from ._memory import MemorySink
from ._nats import NatsServer
from ._otlp import OtlpReceiver
from ._outbox_proxy import OutboxProxy
from ._proxy import PostgresProxy
from ._tcp import TcpProxy

__all__ = [
    "EmbeddedPostgres",
    "Held",
    "MemorySink",
    "NatsServer",
    "OtlpReceiver",
    "OutboxProxy",
    "PostgresProxy",
    "TcpProxy",
]
