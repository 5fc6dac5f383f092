"""The client for one topic."""

from collections.abc import Sequence
from typing import Any, Final

from dsql_outbox.publisher.sinks.aws.batch_client import (
    Answers,
    BatchClient,
    ClientError,
    answers_by_id,
    error_code,
)
from dsql_outbox.publisher.sinks.aws.entries import Entry

from .url import SnsSettings

_DEFAULT_BYTES: Final = 256 << 10
"""The limit of a topic whose attribute ``MaximumMessageSize`` was not changed."""


class SnsClient(BatchClient):
    """Sends requests to a topic."""

    api = "sns"
    service = "SNS"

    def __init__(self, settings: SnsSettings, connections: int) -> None:
        super().__init__(str(settings), settings.address, connections)
        self._arn = settings.arn
        self.max_bytes = _DEFAULT_BYTES
        """The limit for a message with its attributes, and for a request."""

    def _prepare(self) -> None:
        """Ask for the limit of the topic; without the right to ask, the default holds."""
        try:
            attributes = self._find()
        except ClientError as error:
            if "AuthorizationError" not in error_code(error):
                raise
        else:
            self.max_bytes = int(attributes.get("MaximumMessageSize", _DEFAULT_BYTES))

    def _find(self) -> Any:
        return self._client.get_topic_attributes(TopicArn=self._arn)["Attributes"]

    def _send(self, entries: Sequence[Entry]) -> Answers:
        requests = [entry.request for entry in entries]
        response = self._client.publish_batch(
            TopicArn=self._arn, PublishBatchRequestEntries=requests
        )
        return answers_by_id(self.service, response)
