"""Parse an ``sqs://`` URL."""

import re
from dataclasses import dataclass
from typing import Final

from dsql_outbox.publisher.sinks.aws.address import AwsAddress, match_place, parse_address

_KIND: Final = "an SQS URL"
_FORM: Final = "sqs://NAME or sqs://HOST/ACCOUNT/NAME, and perhaps ?PARAMETERS"

# The rule for names is that of CreateQueue in the API reference.
_PLACE: Final = re.compile(
    r"sqs://(?:(?P<host>[A-Za-z0-9.-]+(?::\d+)?)/(?P<account>\w+)/)?"
    r"(?P<name>(?=.{1,80}$)[A-Za-z0-9_-]+(?:\.fifo)?)"
)
_REGION: Final = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.")


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
    found, query = match_place(_KIND, _FORM, _PLACE, url)
    host, account, name = found["host"], found["account"], found["name"]
    region = _REGION.match(host or "")
    return SqsSettings(
        name=name,
        url=f"https://{host}/{account}/{name}" if host else None,
        address=parse_address(_KIND, query, region[1] if region else None),
    )
