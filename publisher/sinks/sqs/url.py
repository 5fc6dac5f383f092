"""Parse an ``sqs://`` URL."""

import re
from dataclasses import dataclass
from typing import Final

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher.sinks.url import TIMEOUT, parameters, seconds

_KIND: Final = "an SQS URL"
_FORM: Final = "sqs://NAME or sqs://HOST/ACCOUNT/NAME, and perhaps ?PARAMETERS"
_PARAMETERS: Final = ("endpoint", "region", "timeout")

# The rule for names is that of CreateQueue in the API reference.
_PLACE: Final = re.compile(
    r"(?:(?P<host>[A-Za-z0-9.-]+(?::\d+)?)/(?P<account>\w+)/)?"
    r"(?P<name>(?=.{1,80}$)[A-Za-z0-9_-]+(?:\.fifo)?)"
)
_REGION: Final = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.")
_ENDPOINT: Final = re.compile(r"https?://[^\s/?#@]+/?")


@dataclass(frozen=True, kw_only=True)
class SqsSettings:
    """The queue and how to reach it; `timeout` is in seconds."""

    name: str
    url: str | None
    """The queue's URL; None if SQS must be asked for it by name."""
    region: str | None
    endpoint: str | None
    timeout: float

    @property
    def is_fifo(self) -> bool:
        """Whether the queue is FIFO, with order and deduplication; SQS demands this suffix."""
        return self.name.endswith(".fifo")

    def __str__(self) -> str:
        return f"SQS queue {self.name}"


def parse_sqs_url(url: str) -> SqsSettings:
    """Parse a URL; raises `SettingsError` if it is malformed or has an unknown parameter."""
    address, _, query = url.partition("?")
    found = _PLACE.fullmatch(address.removeprefix("sqs://"))
    if found is None or not url.startswith("sqs://"):
        raise SettingsError(f"{_KIND} is {_FORM}; credentials are the AWS SDK's")
    given = parameters(_KIND, query, _PARAMETERS)
    endpoint = given.get("endpoint")
    if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
        raise SettingsError(f"endpoint of {_KIND} is http://HOST[:PORT] or https://..")
    host, account, name = found["host"], found["account"], found["name"]
    region = _REGION.match(host or "")
    return SqsSettings(
        name=name,
        url=f"https://{host}/{account}/{name}" if host else None,
        region=given.get("region") or (region[1] if region else None),
        endpoint=endpoint,
        timeout=seconds(_KIND, given.get("timeout", TIMEOUT)),
    )
