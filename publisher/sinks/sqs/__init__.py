"""The sink ``sqs://``: a queue of Amazon SQS, standard or FIFO.

Messages of all topics go to the same queue; the topic is an attribute of the message.
The AWS SDK finds the credentials, and the URL holds none. `sink` and `client` add to
`aws/` the parts for SQS, `url` parses the URL. Its parameters are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a request may take |
| region | that of the queue's URL, else the SDK's | AWS region, such as eu-west-1 |
| endpoint | that of AWS | URL of another server with the API of SQS |
"""

from contextlib import AbstractAsyncContextManager

from dsql_outbox.outbox import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink

from .url import parse_sqs_url


def open_sqs(url: str) -> AbstractAsyncContextManager[Sink]:
    """Use the queue ``sqs://NAME`` or ``sqs://sqs.REGION.amazonaws.com/ACCOUNT/NAME``.

    Raises `SettingsError` for a malformed URL and `MissingExtra` without the extra
    [sqs]. On entry it raises `SettingsError` if no region is known, and
    `SinkUnavailable` if a queue given by name does not exist.
    """
    settings = parse_sqs_url(url)
    try:
        from dsql_outbox.publisher.sinks.aws.batch_sink import connected  # noqa: PLC0415 - boto3

        from .sink import SqsSink  # noqa: PLC0415 - boto3 is an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("sqs", "the sink sqs://") from error
    return connected(SqsSink(settings))
