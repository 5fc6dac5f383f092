"""For tests: real servers from wheels, and a proxy that breaks things on purpose."""

from ._embedded import EmbeddedPostgres
from ._faults import Held
from ._nats import NatsServer
from ._otlp import OtlpReceiver
from ._proxy import PostgresProxy
from ._tcp import TcpProxy

__all__ = [
    "EmbeddedPostgres",
    "Held",
    "NatsServer",
    "OtlpReceiver",
    "PostgresProxy",
    "TcpProxy",
]
