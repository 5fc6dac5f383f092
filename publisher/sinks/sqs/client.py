"""The client for one queue."""

from collections.abc import Sequence
from typing import Final

from dsql_outbox.publisher.sinks.aws.batch_client import Answers, BatchClient, answers_by_id
from dsql_outbox.publisher.sinks.aws.entries import Entry

from .url import SqsSettings

MAX_BYTES: Final = 1 << 20
"""The limit for a message with its attributes, and for a request (256 KiB until 2025)."""


class SqsClient(BatchClient):
    """Sends requests to a queue."""

    api = "sqs"
    service = "SQS"

    def __init__(self, settings: SqsSettings, connections: int) -> None:
        super().__init__(str(settings), settings.address, connections)
        self._name = settings.name
        self._queue_url = settings.url

    def _prepare(self) -> None:
        """Ask for the URL of a queue that is given by name."""
        if self._queue_url is None:
            self._queue_url = self._find()

    def _find(self) -> str:
        return str(self._client.get_queue_url(QueueName=self._name)["QueueUrl"])

    def _send(self, entries: Sequence[Entry]) -> Answers:
        requests = [entry.request for entry in entries]
        response = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=requests)
        return answers_by_id(self.service, response)
