"""The sink ``eventbridge://``: an event bus of Amazon EventBridge.

Messages of all topics go to the same bus. The detail of an entry is a CloudEvent in
structured mode, so rules can match every attribute and the event itself. A payload that is not
JSON is a string, or ``data_base64`` if its content type is not text. The AWS SDK
finds the credentials. The parameters of the URL are:

| parameter | default | meaning |
| --- | --- | --- |
| timeout | 5 | seconds that a request may take |
| region | that of the ARN, else the SDK's | AWS region, such as eu-west-1 |
| endpoint | that of AWS | URL of another server with the API of EventBridge |
"""

import json
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
    blames_target,
    match_before_query,
    parse_address,
    refusal,
)
from dsql_outbox.brokers.aws.batch_sink import BatchSink
from dsql_outbox.outbox.content_type import is_json
from dsql_outbox.outbox.message import Message
from dsql_outbox.publisher.sinks.cloudevents import ONLY_UTF8, text_or_base64
from dsql_outbox.publisher.sinks.port import Delivered, Outcome, Rejected, Retry, Sink, Unavailable
from dsql_outbox.publisher.sinks.registry import connected

_KIND: Final = "an EventBridge URL"
_FORM: Final = (
    "eventbridge://NAME or eventbridge://arn:aws:events:REGION:ACCOUNT:event-bus/NAME, "
    "and perhaps ?PARAMETERS"
)

# The rule for names is that of CreateEventBus in the API reference.
_PLACE: Final = re.compile(
    r"eventbridge://(?P<bus>(?:arn:aws[a-z-]*:events:(?P<region>[a-z0-9-]+):\d{12}:event-bus/)?"
    r"(?P<name>[A-Za-z0-9._-]{1,256}))"
)

_REJECTED: Final = ("InvalidArgument", "MalformedDetail", "RedactionFailure")
"""Error codes of an entry that blame the message."""

MAX_BYTES: Final = (1 << 20) - 1
"""The limit for a request: less than 1 MiB (256 KiB until 2026)."""

_MAX_TYPE: Final = 128
"""The limit of characters of a detail type."""


@dataclass(frozen=True, kw_only=True)
class EventBridgeSettings:
    """The bus and how to reach it."""

    bus: str
    """The name or the ARN of the bus."""
    name: str
    address: AwsAddress

    def __str__(self) -> str:
        return f"EventBridge bus {self.name}"


def parse_eventbridge_url(url: str) -> EventBridgeSettings:
    """Parse a URL. Raises `SettingsError` if it is malformed or has an unknown parameter."""
    found, query = match_before_query(_KIND, _FORM, _PLACE, url)
    return EventBridgeSettings(
        bus=found["bus"], name=found["name"], address=parse_address(_KIND, query, found["region"])
    )


class EventBridgeClient(BatchClient):
    """Sends requests to a bus."""

    api = "events"
    service = "EventBridge"
    system = "aws.eventbridge"
    max_bytes = MAX_BYTES

    def __init__(self, settings: EventBridgeSettings) -> None:
        super().__init__(str(settings), settings.name, settings.address)
        self._bus = settings.bus

    def entry(self, index: int, message: Message) -> Entry | Rejected:
        """The entry of a message."""
        return make_entry(index, message, self._bus)

    def _find(self) -> Any:
        return self._client.describe_event_bus(Name=self._bus)

    def _is_answer(self, code: str) -> bool:  # noqa: ARG002 - no error is one
        # PutEvents acknowledges events for a bus that does not exist, and drops them. So
        # the sink works only with a bus that is known to exist.
        return False

    def _send(self, entries: Sequence[Entry]) -> Answers:
        response = self._client.put_events(Entries=[entry.request for entry in entries])
        pairs = zip(entries, response["Entries"], strict=True)
        return ((entry.index, _outcome(answered)) for entry, answered in pairs)


def _outcome(answered: dict[str, str]) -> Outcome:
    code = answered.get("ErrorCode")
    if not code:
        return Delivered()
    text = refusal("EventBridge", answered.get("ErrorMessage"), code)
    if blames_target(code):
        return Unavailable(text)
    return Rejected(text) if code in _REJECTED else Retry(text)


def make_entry(index: int, message: Message, bus: str) -> Entry | Rejected:
    """The entry of the message with this index, or why EventBridge would refuse it."""
    if message.wire_headers:
        return Rejected("EventBridge has no headers: let the map set attributes, or the payload")
    source, kind = message.headers.get("source", ""), message.headers.get("type", "")
    if not 1 <= len(kind) <= _MAX_TYPE:
        rule = f"EventBridge takes types of 1 to {_MAX_TYPE} characters, this has {len(kind)}"
        return Rejected(rule)
    try:
        detail = _detail(message)
    except UnicodeDecodeError:
        return Rejected(f"EventBridge {ONLY_UTF8}")
    except (ValueError, RecursionError):
        return Rejected("EventBridge takes only JSON, of at most 1000 levels")
    size = sum(len(text.encode(errors="replace")) for text in (source, kind, detail))
    if size > MAX_BYTES:
        limit = f"the limit of EventBridge of {MAX_BYTES} bytes"
        return Rejected(f"message of {size} bytes is over {limit}")
    request = {"Source": source, "DetailType": kind, "Detail": detail, "EventBusName": bus}
    return Entry(index, request, size)


def _detail(message: Message) -> str:
    """The CloudEvent. Raises the errors of `json.loads` for a payload that claims to be JSON."""
    own = {"topic": message.topic, "dedupeid": message.dedupe_id}
    attributes = json.dumps(message.headers | own, separators=(",", ":"))
    return f"{attributes[:-1]},{_data(message)}}}"


def _data(message: Message) -> str:
    text, is_base64 = text_or_base64(message)
    if is_base64:
        return f'"data_base64":"{text}"'
    if is_json(message.content_type):
        json.loads(text)  # text that is no JSON could end the detail early, and forge attributes
        return f'"data":{text}'
    return f'"data":{json.dumps(text, ensure_ascii=False)}'


def open_eventbridge(url: str) -> AbstractAsyncContextManager[Sink]:
    """Use the bus ``eventbridge://NAME`` or ``eventbridge://ARN``.

    Raises `SettingsError` for a malformed URL and `MissingExtra` without the extra
    [eventbridge]. On entry it raises `SettingsError` if no region is known, and
    `SinkUnavailable` if the bus does not exist or may not be asked for.
    """
    return connected(BatchSink(EventBridgeClient(parse_eventbridge_url(url))))
