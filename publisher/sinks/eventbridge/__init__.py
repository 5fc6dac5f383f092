"""The sink ``eventbridge://``: an event bus of Amazon EventBridge.

Messages of all topics go to the same bus. The detail of an entry is a CloudEvent in
structured mode, so rules can match every attribute and the event itself. The AWS SDK
finds the credentials. `sink` and `client` add to `aws/` the parts for
EventBridge, `event_entry` builds the entries, `url` parses the URL. Its parameters are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a request may take |
| region | that of the ARN, else the SDK's | AWS region, such as eu-west-1 |
| endpoint | that of AWS | URL of another server with the API of EventBridge |
"""

from contextlib import AbstractAsyncContextManager

from dsql_outbox.outbox import MissingExtra
from dsql_outbox.publisher.sinks.port import Sink

from .url import parse_eventbridge_url


def open_eventbridge(url: str) -> AbstractAsyncContextManager[Sink]:
    """Use the bus ``eventbridge://NAME`` or ``eventbridge://ARN``.

    Raises `SettingsError` for a malformed URL and `MissingExtra` without the extra
    [eventbridge]. On entry it raises `SettingsError` if no region is known, and
    `SinkUnavailable` if the bus does not exist or may not be asked for.
    """
    settings = parse_eventbridge_url(url)
    try:
        from dsql_outbox.publisher.sinks.aws.batch_sink import connected  # noqa: PLC0415 - boto3

        from .sink import EventBridgeSink  # noqa: PLC0415 - boto3 is an extra
    except ModuleNotFoundError as error:
        raise MissingExtra("eventbridge", "the sink eventbridge://") from error
    return connected(EventBridgeSink(settings))
