"""What can be shown of the errors of librdkafka."""

import re
from typing import Final

from confluent_kafka import KafkaError

_LOGIN: Final = re.compile(r"((?:SASL|OAUTHBEARER|OIDC|token)\b[^:]{0,60}): .*", re.DOTALL)
"""The text of a broker, or of an issuer of tokens, that refuses a login: it may quote it."""


def shown(text: str) -> str:
    """What can be shown of a text of librdkafka: all but what others say about a login."""
    return _LOGIN.sub(r"\1", text)


def error_text(error: KafkaError) -> str:
    """What can be shown of an error."""
    return shown(error.str())


def report_text(error: KafkaError) -> str:
    """The text of the code of a report: that of the broker may quote the record (KIP-467)."""
    return KafkaError(error.code()).str()
