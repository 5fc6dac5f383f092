"""The sink for SNS."""

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.sinks.aws.batch_sink import REQUESTS, BatchSink
from dsql_outbox.publisher.sinks.aws.entries import Entry
from dsql_outbox.publisher.sinks.aws.message_entry import MessageForm, entry_or_rejection
from dsql_outbox.publisher.sinks.port import Rejected

from .client import SnsClient
from .url import SnsSettings


class SnsSink(BatchSink):
    """Publishes to one topic."""

    system = "aws.sns"

    def __init__(self, settings: SnsSettings) -> None:
        self._topic = SnsClient(settings, REQUESTS)
        super().__init__(self._topic, settings.address.timeout)
        self._is_fifo = settings.is_fifo

    def _entry(self, index: int, message: Message) -> Entry | Rejected:
        return entry_or_rejection(index, message, self._form())

    def _form(self) -> MessageForm:
        return MessageForm(
            service="SNS", body="Message", is_fifo=self._is_fifo, max_bytes=self._max_bytes()
        )

    def _max_bytes(self) -> int:
        return self._topic.max_bytes
