"""Public helpers for the tests of applications.

`memory_sink` is a broker in memory, `otlp_receiver` a collector in memory. `mapped_event` maps an
event without either. `faults` makes the writes of this process fail. `plugin` is a
pytest plugin with fixtures for them, `sink_contract` the suite that every sink must
pass. The servers come from `dsql_outbox.servers`.
"""

from dsql_outbox.servers.nats_server import NatsServer
from dsql_outbox.servers.postgres_server import EmbeddedPostgres

from .faults import Faults
from .mapped_event import mapped, message_of
from .memory_sink import MemorySink
from .otlp_receiver import OtlpReceiver

__all__ = [
    "EmbeddedPostgres",
    "Faults",
    "MemorySink",
    "NatsServer",
    "OtlpReceiver",
    "mapped",
    "message_of",
]
