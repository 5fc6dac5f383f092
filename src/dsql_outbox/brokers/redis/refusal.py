"""What an error that the server answered blames: a message, its topic, or the whole server."""

import re
from typing import Final

from redis.exceptions import (
    AskError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from dsql_outbox.outbox.redaction import error_text
from dsql_outbox.publisher.sinks.port import Rejected, Unavailable

KNOWN: Final = re.compile(
    r"invalid username-password pair|Authentication required|Connection closed by server"
    r"|AUTH <password> called without any password|Client sent AUTH, but no password"
    r"|No master found for '[A-Za-z0-9_.-]{1,80}'"
    r"|max number of clients reached|DB index is out of range|invalid DB index"
    r"|unknown command ['`][A-Za-z]{1,20}['`]"
    r"|(?i:no) permissions to (?:run the '[a-z|]{1,30}' command|access [a-z ]{1,60})"
    r"|WRONGTYPE Operation against a key holding the wrong kind of value"
    r"|Hash slot not served|The cluster is down"
    r"|command not allowed when (?:used memory > 'maxmemory'|out of memory)"
    r"|can't write against a read only replica"
    r"|NOREPLICAS Not enough good replicas to write"
    r"|MISCONF (?:Valkey|Redis) is configured to save RDB snapshots"
    r"|MISCONF Errors writing to the AOF file: [A-Za-z ]{1,40}"
    r"|(?:Valkey|Redis) is (?:loading the dataset in memory|busy running a script)"
    r"|Link with MASTER is down"
    r"|WAITAOF cannot be used when [a-z ]{1,60}"
    r"|Protocol error: [a-z ]{1,30}"
    r"|(?:Elements are too large to be stored|max request size exceeded)"
)
"""The parts of replies that quote nothing of a command."""

_SERVER: Final = (ClusterDownError, OutOfMemoryError, ReadOnlyError)
_SERVER_TEXT: Final = re.compile(
    r"(?:Transaction discarded because of: )?"  # the answer to EXEC, which redis-py does not parse
    r"(?:BUSY|CLUSTERDOWN|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|UNKILLABLE) "
)
"""The texts of errors for which redis-py has no class."""

_TOO_LARGE: Final = re.compile("invalid bulk length|too large to be stored|max request size")
_NO_SLOT: Final = "Hash slot not served"


def closes_connection(refusal: ResponseError) -> bool:
    """Whether the server reads nothing behind the command that it refuses."""
    return str(refusal).startswith("Protocol error")


def blames_server(refusal: ResponseError) -> bool:
    """Whether the server refuses every write: no memory, a replica, a disk that is full, .."""
    text = str(refusal)
    if _NO_SLOT in text or _TOO_LARGE.search(text):
        return False
    is_known = isinstance(refusal, _SERVER) or _SERVER_TEXT.match(text) is not None
    return is_known or closes_connection(refusal)


def outcome_of(topic: str, size: int, refusal: ResponseError) -> Unavailable | Rejected:
    """The outcome of a message that the server refuses.

    It refuses a payload that is too large. Anything else is about the topic: a key of another
    type, no right.
    """
    if isinstance(refusal, AskError):  # MOVED, too
        return Unavailable(
            f"{topic} belongs to another node of the Redis cluster: the sink uses one server"
        )
    text = f"refused by Redis: {error_text(refusal, KNOWN)}"
    if _TOO_LARGE.search(str(refusal)):
        limit = "the server has a limit, such as proto-max-bulk-len"
        return Rejected(f"{text} (a payload of {size:,} bytes; {limit})")
    return Unavailable(text)
