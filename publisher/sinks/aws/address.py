"""Parse the parameters that the URLs of all services of AWS have: region, endpoint, timeout."""

import re
from dataclasses import dataclass
from typing import Final

from dsql_outbox.outbox import SettingsError
from dsql_outbox.publisher.sinks.url import TIMEOUT, parameters, seconds

_PARAMETERS: Final = ("endpoint", "region", "timeout")
_ENDPOINT: Final = re.compile(r"https?://[^\s/?#@]+/?")


@dataclass(frozen=True, kw_only=True)
class AwsAddress:
    """Where a service is, and how long a request may take."""

    region: str | None
    """The AWS region; None if the SDK must find it."""
    endpoint: str | None
    """The URL of another server with the API of the service."""
    timeout: float
    """Seconds that a request may take."""


def match_place(
    kind: str, form: str, place: re.Pattern[str], url: str
) -> tuple[re.Match[str], str]:
    """Match the part of a URL before its query; return the match and the query.

    Raises `SettingsError`, with the `form` that the URL should have.
    """
    found, _, query = url.partition("?")
    match = place.fullmatch(found)
    if match is None:
        raise SettingsError(f"{kind} is {form}; credentials are the AWS SDK's")
    return match, query


def parse_address(kind: str, query: str, region: str | None) -> AwsAddress:
    """Parse the query of a URL; `region` is the one that the rest of the URL names.

    Raises `SettingsError` for a malformed or an unknown parameter.
    """
    given = parameters(kind, query, _PARAMETERS)
    endpoint = given.get("endpoint")
    if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
        raise SettingsError(f"endpoint of {kind} is http://HOST[:PORT] or https://..")
    return AwsAddress(
        region=given.get("region") or region,
        endpoint=endpoint,
        timeout=seconds(kind, given.get("timeout", TIMEOUT)),
    )
