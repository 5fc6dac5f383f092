"""What can be shown of the errors of a NATS server, and of nats-py."""

import re
from typing import Final

from nats.errors import Error as NatsError

from dsql_outbox.outbox.redaction import error_text, known_text

_KNOWN: Final = re.compile(
    r"(?:account |user )?authentication (?:expired|revoked|timeout)|authorization violation"
    r"|(?:account )?maximum (?:account active )?connections exceeded|maximum payload violation"
    r"|maximum control line exceeded|permissions violation|secure connection - tls required"
    r"|attempted to connect to [a-z]{1,9} port|unknown protocol operation|parser error"
    r"|invalid client protocol|stale connection"
    r"|empty response from server when expecting INFO message|info message, json parse error",
    re.IGNORECASE,
)
"""Errors of the server (``-ERR``). It may quote the line that it does not understand."""

_DESCRIPTIONS: Final = re.compile(
    r"maximum [a-z]{1,20}(?: [a-z]{1,20}){0,3} exceeded|sealed|stream is offline"
    r"|(?:header|message) size exceeds maximum allowed"
    r"|subjects overlap with an existing stream|stream name already in use[a-z ]{0,50}"
    r"|replicas > 1 not supported in non-clustered mode|no suitable peers for placement"
    r"|(?:insufficient|no) (?:storage |memory )?resources(?: available| exceeded)?"
    r"|JetStream (?:not enabled(?: for account)?|system temporarily unavailable|is not available)"
    r"|account resources exceeded|expected stream does not match"
    r"|invalid (?:subject|stream name)|stream not found|(?:batch|atomic) publish [a-z ]{1,40}",
    re.IGNORECASE,
)
"""Descriptions in JetStream's errors."""


def client_text(error: Exception) -> str:
    """What can be shown of an error of nats-py, which may quote the server."""
    if isinstance(error, NatsError) and type(error) is not NatsError and not error.args:
        return str(error).removeprefix("nats: ")  # a text that belongs to its class
    return error_text(error, _KNOWN)


def jetstream_text(description: str | None, code: int | None) -> str:
    """What can be shown of an error of JetStream, which names itself by a code."""
    known = known_text(description or "", _DESCRIPTIONS)
    return f"{known} ({code})" if known else f"error {code}"
