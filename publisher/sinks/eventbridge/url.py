"""Parse an ``eventbridge://`` URL."""

import re
from dataclasses import dataclass
from typing import Final

from dsql_outbox.publisher.sinks.aws.address import AwsAddress, match_place, parse_address

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
    found, query = match_place(_KIND, _FORM, _PLACE, url)
    return EventBridgeSettings(
        bus=found["bus"], name=found["name"], address=parse_address(_KIND, query, found["region"])
    )
