"""For tests: real servers from wheels, proxies that break things on purpose, a sink in memory."""

from dsql_outbox.servers.nats_server import NatsServer
from dsql_outbox.servers.postgres_server import EmbeddedPostgres
from dsql_outbox.testing.proxy.faults import Held
from dsql_outbox.testing.proxy.outbox_proxy import OutboxProxy
from dsql_outbox.testing.proxy.postgres_proxy import PostgresProxy
from dsql_outbox.testing.proxy.tcp_proxy import TcpProxy

from .memory_sink import MemorySink
from .otlp_receiver import OtlpReceiver

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
