"""The sink ``sns://``: a topic of Amazon SNS, standard or FIFO.

Messages of all topics of the outbox go to the same SNS topic; their topic is an attribute
of the message, by which subscriptions can filter. The AWS SDK finds the credentials.
The parameters of the URL are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a request may take |
| region | that of the ARN | AWS region, such as eu-west-1 |
| endpoint | that of AWS | URL of another server with the API of SNS |
"""

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

from dsql_outbox.brokers.aws.batch_client import (
    Answers,
    AwsAddress,
    BatchClient,
    Entry,
    answers_by_id,
    error_code,
    match_before_query,
    parse_address,
)
from dsql_outbox.brokers.aws.batch_sink import BatchSink
from dsql_outbox.brokers.aws.message_entry import MessageForm, entry_or_rejection
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Rejected, Sink
from dsql_outbox.publisher.sinks.registry import connected

_KIND: Final = "an SNS URL"
_FORM: Final = "sns://arn:aws:sns:REGION:ACCOUNT:NAME, and perhaps ?PARAMETERS"

# The rule for names is that of CreateTopic in the API reference.
_PLACE: Final = re.compile(
    r"sns://(?P<arn>arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):\d{12}:"
    r"(?P<name>(?=.{1,256}$)[A-Za-z0-9_-]+(?:\.fifo)?))"
)

_DEFAULT_BYTES: Final = 256 << 10
"""The limit of a topic whose attribute ``MaximumMessageSize`` was not changed."""


@dataclass(frozen=True, kw_only=True)
class SnsSettings:
    """The topic and how to reach it."""

    arn: str
    name: str
    address: AwsAddress

    @property
    def is_fifo(self) -> bool:
        """Whether the topic is FIFO, with order and deduplication; SNS demands this suffix."""
        return self.name.endswith(".fifo")

    def __str__(self) -> str:
        return f"SNS topic {self.name}"


def parse_sns_url(url: str) -> SnsSettings:
    """Parse a URL. Raises `SettingsError` if it is malformed or has an unknown parameter."""
    found, query = match_before_query(_KIND, _FORM, _PLACE, url)
    return SnsSettings(
        arn=found["arn"], name=found["name"], address=parse_address(_KIND, query, found["region"])
    )


class SnsClient(BatchClient):
    """Sends requests to a topic."""

    api = "sns"
    service = "SNS"
    system = "aws.sns"

    def __init__(self, settings: SnsSettings) -> None:
        super().__init__(str(settings), settings.name, settings.address)
        self._arn = settings.arn
        self._is_fifo = settings.is_fifo
        self.max_bytes = _DEFAULT_BYTES

    def entry(self, index: int, message: Message) -> Entry | Rejected:
        """The entry of a message."""
        form = MessageForm(
            service="SNS", body="Message", is_fifo=self._is_fifo, max_bytes=self.max_bytes
        )
        return entry_or_rejection(index, message, form)

    def _prepare(self) -> None:
        """Ask for the limit of the topic; without the right to ask, the default holds."""
        try:
            attributes = self._find()
        except self._errors.ClientError as error:
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


def open_sns(url: str) -> AbstractAsyncContextManager[Sink]:
    """Use the topic ``sns://arn:aws:sns:REGION:ACCOUNT:NAME``.

    Raises `SettingsError` for a malformed URL and `MissingExtra` without the extra
    [sns]. On entry it raises `SinkUnavailable` if the topic does not exist or SNS
    cannot be reached.
    """
    return connected(BatchSink(SnsClient(parse_sns_url(url))))
