"""Parse an ``sns://`` URL."""

import re
from dataclasses import dataclass
from typing import Final

from dsql_outbox.publisher.sinks.aws.address import AwsAddress, match_place, parse_address

_KIND: Final = "an SNS URL"
_FORM: Final = "sns://arn:aws:sns:REGION:ACCOUNT:NAME, and perhaps ?PARAMETERS"

# The rule for names is that of CreateTopic in the API reference.
_PLACE: Final = re.compile(
    r"sns://(?P<arn>arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):\d{12}:"
    r"(?P<name>(?=.{1,256}$)[A-Za-z0-9_-]+(?:\.fifo)?))"
)


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
    found, query = match_place(_KIND, _FORM, _PLACE, url)
    return SnsSettings(
        arn=found["arn"], name=found["name"], address=parse_address(_KIND, query, found["region"])
    )
