"""The sink ``sns://``: a topic of Amazon SNS, standard or FIFO.

Messages of all topics of the outbox go to the same SNS topic; their topic is an attribute
of the message, by which subscriptions can filter. The AWS SDK finds the credentials.
`sink` and `client` add to `aws/` the parts for SNS, `url` parses the URL. Its
parameters are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a request may take |
| region | that of the ARN | AWS region, such as eu-west-1 |
| endpoint | that of AWS | URL of another server with the API of SNS |
"""

from contextlib import AbstractAsyncContextManager

from dsql_outbox.outbox import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink

from .url import parse_sns_url


def open_sns(url: str) -> AbstractAsyncContextManager[Sink]:
    """Use the topic ``sns://arn:aws:sns:REGION:ACCOUNT:NAME``.

    Raises `SettingsError` for a malformed URL and `MissingExtra` without the extra
    [sns]. On entry it raises `SinkUnavailable` if the topic does not exist or SNS
    cannot be reached.
    """
    settings = parse_sns_url(url)
    try:
        from dsql_outbox.publisher.sinks.aws.batch_sink import connected  # noqa: PLC0415 - boto3

        from .sink import SnsSink  # noqa: PLC0415 - boto3 is an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("sns", "the sink sns://") from error
    return connected(SnsSink(settings))
