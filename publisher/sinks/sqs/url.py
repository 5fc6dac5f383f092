"""What an ``sqs://`` URL says."""

import re
from dataclasses import dataclass
from typing import Final

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher.sinks.url import TIMEOUT, parameters, seconds

_KIND: Final = "an SQS URL"
_FORM: Final = "sqs://NAME or sqs://HOST/ACCOUNT/NAME, and perhaps ?PARAMETERS"
_PARAMETERS: Final = ("endpoint", "region", "timeout")

# The rule for names is that of CreateQueue.
_PLACE: Final = re.compile(
    r"(?:(?P<host>[A-Za-z0-9.-]+(?::\d+)?)/(?P<account>\w+)/)?"
    r"(?P<name>(?=.{1,80}$)[A-Za-z0-9_-]+(?:\.fifo)?)"
)
_REGION: Final = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.")
_ENDPOINT: Final = re.compile(r"https?://[^\s/?#@]+/?")


@dataclass(frozen=True, kw_only=True)
class SqsSettings:
    """Which queue, and how to speak with it; `timeout` is seconds."""

    name: str
    url: str | None
    """The queue's URL; None: to be asked for by its name."""
    region: str | None
    endpoint: str | None
    timeout: float

    @property
    def is_fifo(self) -> bool:
        """Whether the queue keeps order and knows a message again: SQS names it so."""
        return self.name.endswith(".fifo")

    def __str__(self) -> str:
        return f"SQS queue {self.name}"


def parse_sqs_url(url: str) -> SqsSettings:
    """Read a URL; raises `SettingsError`."""
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
