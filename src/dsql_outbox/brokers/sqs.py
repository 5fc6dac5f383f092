"""The sink ``sqs://``: a queue of Amazon SQS, standard or FIFO.

Messages of all topics go to the same queue; the topic is an attribute of the message.
The AWS SDK finds the credentials, and the URL holds none. The
parameters of the URL are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a request may take |
| region | that of the queue's URL, else the SDK's | AWS region, such as eu-west-1 |
| endpoint | that of AWS | URL of another server with the API of SQS |
"""

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from dsql_outbox.brokers.aws.batch_client import (
    Answers,
    AwsAddress,
    BatchClient,
    Entry,
    answers_by_id,
    match_before_query,
    parse_address,
)
from dsql_outbox.brokers.aws.batch_sink import BatchSink
from dsql_outbox.brokers.aws.message_entry import MessageForm, entry_or_rejection
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.port import Rejected, Sink
from dsql_outbox.publisher.sinks.registry import connected

_KIND: Final = "an SQS URL"
_FORM: Final = "sqs://NAME or sqs://HOST/ACCOUNT/NAME, and perhaps ?PARAMETERS"

# The rule for names is that of CreateQueue in the API reference.
_PLACE: Final = re.compile(
    r"sqs://(?:(?P<host>[A-Za-z0-9.-]+(?::\d+)?)/(?P<account>\w+)/)?"
    r"(?P<name>(?=.{1,80}$)[A-Za-z0-9_-]+(?:\.fifo)?)"
)
_REGION: Final = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.")

MAX_BYTES: Final = 1 << 20
"""The limit for a message with its attributes, and for a request (256 KiB until 2025)."""


@dataclass(frozen=True, kw_only=True)
class SqsSettings:
    """The queue and how to reach it."""

    name: str
    url: str | None
    """The queue's URL; None if SQS must be asked for it by name."""
    address: AwsAddress

    @property
    def is_fifo(self) -> bool:
        """Whether the queue is FIFO, with order and deduplication; SQS demands this suffix."""
        return self.name.endswith(".fifo")

    def __str__(self) -> str:
        return f"SQS queue {self.name}"


def parse_sqs_url(url: str) -> SqsSettings:
    """Parse a URL. Raises `SettingsError` if it is malformed or has an unknown parameter."""
    found, query = match_before_query(_KIND, _FORM, _PLACE, url)
    host, account, name = found["host"], found["account"], found["name"]
    region = _REGION.match(host or "")
    return SqsSettings(
        name=name,
        url=f"https://{host}/{account}/{name}" if host else None,
        address=parse_address(_KIND, query, region[1] if region else None),
    )


class SqsClient(BatchClient):
    """Sends requests to a queue."""

    api = "sqs"
    service = "SQS"
    system = "aws_sqs"
    max_bytes = MAX_BYTES

    def __init__(self, settings: SqsSettings) -> None:
        super().__init__(str(settings), settings.name, settings.address)
        self._queue_url = settings.url
        self._form = MessageForm(
            service="SQS", body="MessageBody", is_fifo=settings.is_fifo, max_bytes=MAX_BYTES
        )

    def entry(self, index: int, message: Message) -> Entry | Rejected:
        """The entry of a message."""
        return entry_or_rejection(index, message, self._form)

    def _prepare(self) -> None:
        """Ask for the URL of a queue that is given by name."""
        if self._queue_url is None:
            self._queue_url = self._find()

    def _find(self) -> str:
        return str(self._client.get_queue_url(QueueName=self.name)["QueueUrl"])

    def _send(self, entries: Sequence[Entry]) -> Answers:
        requests = [entry.request for entry in entries]
        response = self._client.send_message_batch(QueueUrl=self._queue_url, Entries=requests)
        return answers_by_id(self.service, response)


def open_sqs(url: str) -> AbstractAsyncContextManager[Sink]:
    """Use the queue ``sqs://NAME`` or ``sqs://sqs.REGION.amazonaws.com/ACCOUNT/NAME``.

    Raises `SettingsError` for a malformed URL and `MissingExtra` without the extra
    [sqs]. On entry it raises `SettingsError` if no region is known, and
    `SinkUnavailable` if a queue given by name does not exist.
    """
    return connected(BatchSink(SqsClient(parse_sqs_url(url))))
