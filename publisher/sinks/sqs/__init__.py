"""The sink ``sqs://``: a queue of Amazon SQS, standard or FIFO.

All topics go to the one queue; the topic is an attribute of the message.
Credentials come from where the AWS SDK looks for them, never from the URL.
Parameters of the URL:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a request may take |
| region | the queue's, the SDK's | AWS region, as eu-west-1 |
| endpoint | AWS's | URL of another server that speaks SQS |
"""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from dsql_outbox.outbox import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink

from .url import parse_sqs_url

if TYPE_CHECKING:
    from .sink import SqsSink


def open_sqs(url: str) -> AbstractAsyncContextManager[Sink]:
    """Use the queue ``sqs://NAME`` or ``sqs://sqs.REGION.amazonaws.com/ACCOUNT/NAME``.

    Raises `SettingsError` for a URL that breaks a rule and `MissingExtra`
    without the extra [sqs]; on entering, `SettingsError` without a region and
    `SinkUnavailable` when a queue given by its name is not found.
    """
    settings = parse_sqs_url(url)
    try:
        from .sink import SqsSink  # noqa: PLC0415 - boto3 is an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("sqs", "the sink sqs://") from error
    return _connected(SqsSink(settings))


@asynccontextmanager
async def _connected(sink: "SqsSink") -> AsyncGenerator[Sink]:
    try:
        await sink.connect()
        yield sink
    finally:
        await sink.close()
