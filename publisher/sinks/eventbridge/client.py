"""The client for one bus."""

from collections.abc import Sequence
from typing import Any, Final

from dsql_outbox.publisher.sinks.aws.batch_client import (
    Answers,
    BatchClient,
    blames_target,
    refusal,
)
from dsql_outbox.publisher.sinks.aws.entries import Entry
from dsql_outbox.publisher.sinks.port import Delivered, Outcome, Rejected, Retry, Unavailable

from .url import EventBridgeSettings

_REJECTED: Final = ("InvalidArgument", "MalformedDetail", "RedactionFailure")
"""Error codes of an entry that blame the message."""


class EventBridgeClient(BatchClient):
    """Sends requests to a bus."""

    api = "events"
    service = "EventBridge"

    def __init__(self, settings: EventBridgeSettings, connections: int) -> None:
        super().__init__(str(settings), settings.address, connections)
        self._bus = settings.bus

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
