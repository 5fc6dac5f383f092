"""The sink for SQS."""

from dsql_outbox.outbox import Message
from dsql_outbox.publisher.sinks.aws.batch_sink import REQUESTS, BatchSink
from dsql_outbox.publisher.sinks.aws.entries import Entry
from dsql_outbox.publisher.sinks.aws.message_entry import MessageForm, entry_or_rejection
from dsql_outbox.publisher.sinks.port import Rejected

from .client import MAX_BYTES, SqsClient
from .url import SqsSettings


class SqsSink(BatchSink):
    """Publishes to one queue."""

    system = "aws_sqs"

    def __init__(self, settings: SqsSettings) -> None:
        super().__init__(SqsClient(settings, REQUESTS), settings.address.timeout)
        self._form = MessageForm(
            service="SQS", body="MessageBody", is_fifo=settings.is_fifo, max_bytes=MAX_BYTES
        )

    def _entry(self, index: int, message: Message) -> Entry | Rejected:
        return entry_or_rejection(index, message, self._form)

    def _max_bytes(self) -> int:
        return MAX_BYTES
