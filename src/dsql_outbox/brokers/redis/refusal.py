"""What an error that the server answered to an XADD blames: its topic, or the whole server."""

import re
from typing import Final

from redis.exceptions import (
    AskError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from dsql_outbox.publisher.sinks.port import Unavailable

_SERVER: Final = (ClusterDownError, OutOfMemoryError, ReadOnlyError)
_SERVER_TEXT: Final = re.compile(
    r"(?:Transaction discarded because of: )?"  # the answer to EXEC, which redis-py does not parse
    r"(?:BUSY|CLUSTERDOWN|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|UNKILLABLE) "
)
"""The texts of errors for which redis-py has no class."""


def blames_server(refusal: ResponseError) -> bool:
    """Whether the server refuses every write: no memory, a replica, a disk that is full, .."""
    return isinstance(refusal, _SERVER) or _SERVER_TEXT.match(str(refusal)) is not None


def topic_outcome(topic: str, refusal: ResponseError) -> Unavailable:
    """The outcome of a message whose topic the server refuses: a key of another type, no right.

    XADD refuses no message by itself: an entry takes any bytes, and the server makes its id.
    """
    if isinstance(refusal, AskError):  # MOVED, too
        return Unavailable(
            f"{topic} belongs to another node of the Redis cluster: the sink uses one server"
        )
    return Unavailable(f"refused by Redis: {refusal}")
