"""The sink for EventBridge."""

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.sinks.aws.batch_sink import REQUESTS, BatchSink
from dsql_outbox.publisher.sinks.aws.entries import Entry
from dsql_outbox.publisher.sinks.port import Rejected

from .client import EventBridgeClient
from .event_entry import MAX_BYTES, make_entry
from .url import EventBridgeSettings


class EventBridgeSink(BatchSink):
    """Publishes to one bus."""

    system = "aws.eventbridge"

    def __init__(self, settings: EventBridgeSettings) -> None:
        super().__init__(EventBridgeClient(settings, REQUESTS), settings.address.timeout)
        self._bus = settings.bus

    def _entry(self, index: int, message: Message) -> Entry | Rejected:
        return make_entry(index, message, self._bus)

    def _max_bytes(self) -> int:
        return MAX_BYTES
