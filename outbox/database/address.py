"""The address of a database: the parameters that open a connection to it."""

from typing import Final, Literal, NamedTuple, Protocol

import psycopg
from psycopg import IsolationLevel

Isolation = Literal["read committed", "repeatable read"]

ConnectParameters = dict[str, str | int]

DEAD_LINK: Final[ConnectParameters] = {
    "tcp_user_timeout": 10_000,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""libpq's parameters by which the kernel finds out that the other end is gone.

It closes a connection whose data is not acknowledged for 10 s (the timeout is in
milliseconds). An idle connection is asked after 10 s and closed 10 s later. A socket of
the Unix domain ignores them, and so does a system that lacks them.
"""


APPLICATION: Final = "dsql-outbox"


def session_name(part: str) -> str:
    """The name in ``pg_stat_activity`` of a session of a part, such as ``writer``.

    PGAPPNAME, or ``application_name`` in the URL, has precedence.
    """
    return f"{APPLICATION} {part}"


CLIENT_ENCODING: Final = "utf-8"
"""The client encoding of every session, as Python names it.

Events are Unicode text. In another encoding some of them could not be sent.
"""


class Endpoint(NamedTuple):
    """The host, the port and the database of a URL; None if the URL does not name one."""

    host: str | None
    port: int | None
    dbname: str | None


_LAST_PORT: Final = 65_535
_PORT_DIGITS: Final = 5


def is_port(text: str) -> bool:
    """Whether a text is the number of a port that a server can have."""
    is_short = text.isascii() and text.isdigit() and len(text) <= _PORT_DIGITS
    return is_short and 1 <= int(text) <= _LAST_PORT


class Address(Protocol):
    """The address of one database. Its parameters may differ by connection, as a token does."""

    def parameters(self, part: str, *, role_path: bool = False) -> ConnectParameters:
        """Return the parameters for libpq. The call may block. `part` is as in `session_name`.

        The search path of the session is ``pg_catalog``, or with `role_path` that of
        the role.
        """
        ...

    async def parameters_async(self, part: str, *, role_path: bool = False) -> ConnectParameters:
        """Return the same as `parameters`, without blocking the event loop."""
        ...

    @property
    def password_may_change(self) -> bool:
        """Whether the password is read again for each connection."""
        ...

    def renew(self, refusal: psycopg.OperationalError) -> bool:
        """Adapt the parameters to this refusal. Return whether to connect once more."""
        ...

    @property
    def begins_at(self) -> IsolationLevel | None:
        """The level that each BEGIN must name because the session cannot set it, or None."""
        ...

    @property
    def locks_at(self) -> IsolationLevel | None:
        """The level at which a statement behind a lock sees what the lock waited for, or None."""
        ...

    @property
    def takes_local_settings(self) -> bool:
        """Whether a transaction may have settings of the library's own."""
        ...

    @property
    def is_dsql(self) -> bool:
        """Whether it is an Aurora DSQL cluster, where each statement costs money."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """The host, the port and the database, without any secret."""
        ...

    @property
    def role(self) -> str | None:
        """The role that logs in, or None if the URL names none."""
        ...

    @property
    def host_and_port(self) -> str:
        """The host and the port, without any secret."""
        ...

    def __str__(self) -> str:
        """Return the host and the database, without any secret."""
        ...
