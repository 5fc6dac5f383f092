"""What can be shown of the errors of RabbitMQ, and of aiormq."""

import re
from typing import Final

from dsql_outbox.outbox.redaction import error_text

_NAME: Final = "'[^']{0,255}'"
_KNOWN: Final = re.compile(
    r"Login was refused using authentication mechanism PLAIN"
    rf"|(?:NOT_FOUND - )?no (?:exchange|queue) {_NAME} in vhost {_NAME}"
    rf"|ACCESS_REFUSED - (?:(?:write )?access to (?:exchange|topic|vhost) {_NAME}[a-z ]{{0,20}})"
    r"|message size \d{1,15} is larger than [a-z_ ]{1,30} \d{1,15}"
    r"|virtual host .{1,255} is missing, is down, or not for user .{1,255}"
    r"|no answer within [0-9.]+ s"
    # The names of AMQP's codes:
    r"|ACCESS_REFUSED|CHANNEL_ERROR|COMMAND_INVALID|CONNECTION_FORCED|CONTENT_TOO_LARGE|FRAME_ERROR"
    r"|INTERNAL_ERROR|INVALID_PATH|NOT_ALLOWED|NOT_FOUND|NOT_IMPLEMENTED|NO_ROUTE"
    r"|PRECONDITION_FAILED|RESOURCE_ERROR|RESOURCE_LOCKED|SYNTAX_ERROR|UNEXPECTED_FRAME"
)
"""The parts of replies that quote nothing of a login or of a message."""


def client_text(error: BaseException | None) -> str:
    """The reason in an error of aiormq, of RabbitMQ or of a socket, without what they quote."""
    return "connection lost" if error is None else error_text(error, _KNOWN)
