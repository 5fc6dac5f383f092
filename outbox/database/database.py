"""A database: its settings, and how connections to it are opened."""

import copy
import logging
import math
import random
import re
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, Final, TypeVar, get_args

import anyio
import psycopg
from psycopg import IsolationLevel

from dsql_outbox.outbox.arguments import wrong_type
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.failure import add_schema, is_waking, is_wrong_password
from dsql_outbox.outbox.settings import require_positive

from .address import Address, Endpoint, Isolation
from .connection import AsyncConnection, Connection, connecting_until, not_connected
from .rate_limit import OPENS_PER_SECOND, OpenRate
from .url_scheme import address_of

DEFAULT_SCHEMA: Final = "outbox"

MAX_LIFETIME: Final = 55 * 60.0
"""Seconds. DSQL closes connections after 60 minutes (AWS, Aurora DSQL quotas)."""

_SPREAD: Final = 0.05
"""The random share by which a lifetime is cut, so that connections do not expire together."""

WAKING_PATIENCE: Final = 60.0
"""Seconds that an idle cluster may take to wake up. Only the first connection wakes it."""

_WAKING_WAIT: Final = 0.5
"""Seconds between two tries to connect meanwhile."""

_PASSWORD_PATIENCE: Final = 10.0
"""Seconds between the change of a role's password and the time when the new one can be read."""

_PASSWORD_WAIT: Final = 0.2
"""Seconds between two tries to log in meanwhile."""

C = TypeVar("C", Connection, AsyncConnection)

logger: Final = logging.getLogger("dsql_outbox")

_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Database:
    """A database that holds the outbox tables, or will hold them.

    The constructor does no I/O.

    `url` is ``postgresql://..`` or
    ``dsql://role@cluster.dsql.region.on.aws/postgres``. `schema` is the name of the
    database schema that holds the tables.

    `isolation` is the isolation level of every connection on PostgreSQL. None
    means the server's default. The library is correct at both levels. Behind a
    pooler that refuses session settings, each writing transaction begins at that
    level instead.

    `password` is a function that returns the password of the role, for a secret that changes. It is
    called for each new connection, also by several threads at once, and may block. A login
    that is refused is tried again for 10 s, until the new password is there.

    ``prepare=False`` is for a pooler that does not support prepared statements.

    `connect_timeout` is in seconds per address; libpq rounds it up to whole
    seconds and to at least 2. `opens_per_second` limits new connections.

    Raises `SettingsError` if the URL, the schema name or a limit is not valid, and
    `TypeError` for an argument of a wrong type.

        >>> Database("postgresql://app@db.example.com/shop", schema="outbox").schema
        'outbox'
    """

    def __init__(  # noqa: PLR0913 - one argument per setting
        self,
        url: str,
        *,
        schema: str = DEFAULT_SCHEMA,
        isolation: Isolation | None = None,
        prepare: bool = True,
        connect_timeout: float = 10.0,
        opens_per_second: float = OPENS_PER_SECOND,
        password: Callable[[], str] | None = None,
    ) -> None:
        _require_types(url, schema, prepare)
        if password is not None and not callable(password):
            raise wrong_type("Database.password is a function", password, "password=read_secret")
        if isolation not in (*get_args(Isolation), None):
            raise SettingsError(
                f"Database.isolation must be {', '.join(get_args(Isolation))} or None, "
                f"got {isolation}"
            )
        require_positive(
            "Database", {"connect_timeout": connect_timeout, "opens_per_second": opens_per_second}
        )
        if not _SCHEMA_NAME.fullmatch(schema):
            raise SettingsError(
                f"schema {schema!r} must be lower-case letters, digits and _, "
                "must not start with a digit, and may have 63 characters at most"
            )
        add_schema(schema)
        self.schema = schema
        self._part = "operator"
        self._address = address_of(url, isolation, password)
        self._prepare = prepare
        self._connect_timeout = connect_timeout
        self._opens = OpenRate(opens_per_second)

    @property
    def was_reached(self) -> bool:
        """Whether this process ever opened a connection to the database."""
        return self._opens.was_used

    @property
    def address(self) -> str:
        """The host and port of the database, as for a log line. No secret is in it."""
        return self._address.host_and_port

    @property
    def locks_at(self) -> IsolationLevel | None:
        """The isolation level of the library's transactions that lock rows; None: the server's."""
        return self._address.locks_at

    @property
    def endpoint(self) -> Endpoint:
        """The host, the port and the database of the URL. No secret is in it."""
        return self._address.endpoint

    @property
    def role(self) -> str | None:
        """The role of the URL, or None if it names none."""
        return self._address.role

    def connect(
        self,
        *,
        timeout: float | None = None,
        role_path: bool = False,
        abandoned: threading.Event | None = None,
    ) -> Connection:
        """Open one connection in autocommit mode, within `timeout` seconds.

        If another thread sets `abandoned`, the attempt ends within 0.1 s with an error.
        On PostgreSQL the search path of the session is ``pg_catalog``. With
        `role_path` it is the search path of the role. A cluster that is waking up is asked
        again for a minute. Raises the driver's `OperationalError` if no connection can be
        opened in time.
        """
        deadline = monotonic() + (math.inf if timeout is None else timeout)
        refusals = _Refusals(self._address, deadline, WAKING_PATIENCE)
        while True:
            try:
                return self._open(deadline, abandoned, role_path=role_path)
            except psycopg.OperationalError as refusal:
                wait = refusals.wait_after(refusal)
                if wait is None:
                    raise
            if abandoned is None:
                sleep(wait)
            elif abandoned.wait(wait):
                raise not_connected()

    def _open(
        self, deadline: float, abandoned: threading.Event | None, *, role_path: bool
    ) -> Connection:
        with self._turn_to_open(deadline) as wait:
            if abandoned is None:
                sleep(wait)
            elif abandoned.wait(wait):
                raise not_connected()
        with connecting_until(deadline, abandoned):
            found = self._address.parameters(self._part, role_path=role_path)
            opened = Connection.connect(**self._parameters(found))
        opened.isolation_level = self._address.begins_at
        return self._configure(opened, role_path=role_path)

    async def connect_async(
        self,
        *,
        timeout: float | None = None,
        role_path: bool = False,
        waits_for_cluster: bool = True,
    ) -> AsyncConnection:
        """Open one connection as `connect` does, without blocking the event loop.

        Without `waits_for_cluster`, one that is waking up is not asked again.
        """
        deadline = monotonic() + (math.inf if timeout is None else timeout)
        patience = WAKING_PATIENCE if waits_for_cluster else 0.0
        refusals = _Refusals(self._address, deadline, patience)
        with connecting_until(math.inf), anyio.move_on_after(timeout):
            while True:
                try:
                    return await self._open_async(deadline, role_path=role_path)
                except psycopg.OperationalError as refusal:
                    wait = refusals.wait_after(refusal)
                    if wait is None:
                        raise
                await anyio.sleep(wait)
        raise not_connected()

    async def _open_async(self, deadline: float, *, role_path: bool) -> AsyncConnection:
        with self._turn_to_open(deadline) as wait:
            await anyio.sleep(wait)
        found = await self._address.parameters_async(self._part, role_path=role_path)
        opened = await AsyncConnection.connect(**self._parameters(found))
        await opened.set_isolation_level(self._address.begins_at)
        return self._configure(opened, role_path=role_path)

    @contextmanager
    def _turn_to_open(self, deadline: float) -> Generator[float]:
        """Reserve the next turn to connect, and yield the seconds until then.

        The block waits for them. If the turn is after `deadline`, raise the driver's
        `OperationalError` immediately and reserve nothing. If the block raises, give the turn
        back.
        """
        now = monotonic()
        latest = max(now, deadline)
        turn = self._opens.reserve(now, latest)
        if turn > latest:
            raise psycopg.OperationalError(
                f"the limit of new connections per second is reached: the next one may open in "
                f"{turn - now:.1f} s, after the timeout of {latest - now:.1f} s"
            )
        try:
            yield turn - now
        except BaseException:
            self._opens.give_back(turn)
            raise

    def _parameters(self, found: dict[str, Any]) -> dict[str, Any]:
        return found | {
            "autocommit": True,
            # Whatever the URL or PGCLIENTENCODING says, and as the server spells it: pgbouncer
            # compares the two, and with another spelling it sends a SET before each transaction.
            "client_encoding": "UTF8",
            "connect_timeout": math.ceil(self._connect_timeout),
            # psycopg numbers the statements that it prepares. Behind a transaction pooler the
            # same name may be another client's statement. psycopg also sends DEALLOCATE, which
            # Aurora DSQL refuses.
            "prepare_threshold": None,
        }

    @property
    def is_dsql(self) -> bool:
        """Whether it is an Aurora DSQL cluster, where each statement costs money."""
        return self._address.is_dsql

    @property
    def takes_local_settings(self) -> bool:
        """Whether the server may take a mark, as far as the URL says."""
        return self._address.takes_local_settings

    def _configure(self, connection: C, *, role_path: bool) -> C:
        self._opens.was_used = True
        connection.role_path = role_path
        lifetime = MAX_LIFETIME * random.uniform(1 - _SPREAD, 1)  # noqa: S311 - not a secret
        connection.retires_at = monotonic() + lifetime
        connection.prepares = self._prepare
        connection.takes_local_settings = self.takes_local_settings
        return connection

    def __str__(self) -> str:
        """The URL without secrets, and the schema."""
        return f"{self._address} (schema {self.schema})"

    def __repr__(self) -> str:
        return f"Database({self._address}, schema={self.schema!r})"


def used_by(part: str, database: Database) -> Database:
    """Return the same database, whose sessions are named after a part, such as ``writer``.

    Without this, they are those of an operator. Both share the limit of new connections.
    """
    found = copy.copy(database)
    found._part = part  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - of this module
    return found


class _Refusals:
    """The refusals that one connect meets, and whether it tries again after each."""

    def __init__(self, address: Address, deadline: float, patience: float) -> None:
        self._address = address
        self._deadline = deadline
        self._patience = patience
        self._has_renewed = False
        self._waking_since: float | None = None
        self._refused_since: float | None = None

    def wait_after(self, refusal: psycopg.OperationalError) -> float | None:
        """Return the seconds until another try, or None if none may help."""
        if is_waking(refusal) and self._patience:
            return self._wait_for_cluster(monotonic())
        if is_wrong_password(refusal) and self._address.password_may_change:
            return self._wait_for_password(monotonic())
        if self._has_renewed or not self._address.renew(refusal):
            return None
        self._has_renewed = True
        return 0.0

    def _wait_for_cluster(self, now: float) -> float | None:
        if self._waking_since is None:
            self._waking_since = now
            logger.warning(
                "The cluster at %s is waking up: its connections wait for up to %g s",
                self._address.host_and_port,
                self._patience,
            )
        ends = min(self._deadline, self._waking_since + self._patience)
        return _WAKING_WAIT if now + _WAKING_WAIT < ends else None

    def _wait_for_password(self, now: float) -> float | None:
        if self._refused_since is None:
            self._refused_since = now
        ends = min(self._deadline, self._refused_since + _PASSWORD_PATIENCE)
        return _PASSWORD_WAIT if now + _PASSWORD_WAIT < ends else None


def require_database(call: str, database: object) -> None:
    """Raise `TypeError` unless `database` is a `Database`. `call` is the name of the callee."""
    if not isinstance(database, Database):
        raise wrong_type(f"{call} takes a Database", database, f"{call}(Database(url), ..)")


def _require_types(url: object, schema: object, prepare: object) -> None:
    if not isinstance(url, str):
        raise wrong_type("Database takes a URL as str", url, 'Database("postgresql://host/name")')
    if not isinstance(schema, str):
        raise wrong_type("Database.schema is a str", schema, f'schema="{DEFAULT_SCHEMA}"')
    if not isinstance(prepare, bool):
        raise wrong_type("Database.prepare is a bool", prepare, "prepare=False")
