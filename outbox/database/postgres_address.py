"""Connection parameters for PostgreSQL, and what changes behind a pooler."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import psycopg
from anyio import to_thread
from psycopg import IsolationLevel, pq
from psycopg.conninfo import conninfo_to_dict

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.redaction import has_unclear_login

from .address import DEAD_LINK, ConnectParameters, Endpoint, Isolation, is_port, session_name

_LEVELS: Final = {
    "read committed": IsolationLevel.READ_COMMITTED,
    "repeatable read": IsolationLevel.REPEATABLE_READ,
}

_PATH: Final = "-c search_path=pg_catalog"
"""Another schema in the path would be unsafe.

A role that may create objects there could define operators, which statements of the library
would run with the library's rights.
"""

_NO_OPTIONS: Final = "unsupported startup parameter"
"""Part of the error of pgbouncer, which does not support the parameter `options`."""


_FREE: Final = {"password", "sslpassword", "options"}
"""Parameters whose value may look like another parameter."""


def _swallowed_parameter(found: Mapping[str, object]) -> str | None:
    """The parameter whose value is another parameter, as of ``host= password=secret``.

    libpq would quote it in its error, with the password.
    """
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name, value in found.items():
        word, equals, _ = str(value).partition("=")
        if equals and word in known and name not in _FREE:
            return name
    return None


def _check_hosts(hosts: str) -> None:
    """Raise `SettingsError` for a name that cannot be looked up; a folder has a socket."""
    try:
        for host in hosts.split(","):
            if not host.startswith("/"):
                host.encode("idna")
    except UnicodeError:
        raise SettingsError(
            "the host of the database URL is no name: 1 to 63 characters between two dots"
        ) from None


class PostgresAddress:
    """The address of a PostgreSQL database: a URL, or libpq's key=value text.

    `password` returns the password for each new connection, in place of that of the URL.

    Raises `SettingsError` if libpq cannot read the text, or if the password
    contains characters that are not encoded.
    """

    def __init__(
        self, url: str, isolation: Isolation | None, password: Callable[[], str] | None
    ) -> None:
        try:
            found = conninfo_to_dict(url)
        except (psycopg.ProgrammingError, UnicodeError) as error:
            # libpq's text may quote the URL, which may contain a password.
            raise SettingsError("the database URL is not one that libpq can read") from (
                None if "@" in url or "password" in url else error
            )
        address = f"{found.get('host')} {found.get('port')}"
        if "@" in address or has_unclear_login(url):
            # A part of the password would be read, and shown, as host, port or database.
            raise SettingsError(
                "in the password of the database URL, @ : / ? # and blanks must be written as "
                "%40 %3A %2F %3F %23 %20"
            )
        if swallowed := _swallowed_parameter(found):
            raise SettingsError(
                f"the parameter {swallowed} of the database URL is empty, so libpq reads the next "
                "parameter as its value: leave it out, or give it a value"
            )
        _check_hosts(str(found.get("host") or ""))
        if not all(is_port(port) for port in str(found.get("port") or "").split(",") if port):
            raise SettingsError("the port of the database URL is 1 to 65535")
        given: ConnectParameters = {k: v for k, v in found.items() if v is not None}
        self._parameters = DEAD_LINK | given
        # libpq ignores PGOPTIONS if the parameter `options` is given, so merge them here.
        self._options = str(self._parameters.pop("options", os.environ.get("PGOPTIONS", "")))
        self._isolation = isolation
        self._password = password
        self._takes_settings = True

    @property
    def begins_at(self) -> IsolationLevel | None:
        """The level of `isolation` if a pooler refused it as a session setting, else None."""
        if self._isolation is None or self._takes_settings:
            return None
        return _LEVELS[self._isolation]

    @property
    def locks_at(self) -> IsolationLevel:
        """At a higher level a transaction keeps the snapshot of its first statement.

        So it would not see what another one committed that only locked the row, and no conflict
        would be raised: PostgreSQL counts changes of a row alone.
        """
        return IsolationLevel.READ_COMMITTED

    @property
    def takes_local_settings(self) -> bool:
        """True: PostgreSQL keeps a setting with a dot in its name for whoever sets it."""
        return True

    @property
    def is_dsql(self) -> bool:
        """False: a cluster has a URL of its own kind."""
        return False

    def parameters(self, part: str, *, role_path: bool = False) -> ConnectParameters:
        """Return the parameters of the URL, with the session settings in `options`."""
        options = [self._options]
        if self._takes_settings:
            if self._isolation is not None:
                level = self._isolation.replace(" ", "\\ ")
                options.append(f"-c default_transaction_isolation={level}")
            if not role_path:
                options.append(_PATH)
        found = " ".join(filter(None, options))
        name: ConnectParameters = {"fallback_application_name": session_name(part)}
        return name | self._parameters | ({"options": found} if found else {}) | self._secret()

    def _secret(self) -> ConnectParameters:
        if self._password is None:
            return {}
        try:
            password = self._password()
        except Exception as error:  # the function is the user's, and may fail as any outage does
            raise psycopg.OperationalError(
                f"no password for {self}: the function raised {type(error).__name__}"
            ) from error
        if not isinstance(password, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise psycopg.OperationalError(
                f"no password for {self}: the function returned {type(password).__name__}, not str"
            )
        return {"password": password}

    async def parameters_async(self, part: str, *, role_path: bool = False) -> ConnectParameters:
        """Return the same as `parameters`; the password is asked for in a thread."""
        if self._password is None:
            return self.parameters(part, role_path=role_path)
        work = partial(self.parameters, part, role_path=role_path)
        return await to_thread.run_sync(work, abandon_on_cancel=True)

    @property
    def password_may_change(self) -> bool:
        """Whether a function returns the password, or libpq reads a file for each connection."""
        return self._password is not None or "passfile" in self._parameters

    def renew(self, refusal: psycopg.OperationalError) -> bool:
        """Omit the session settings if a pooler refused them, and return True.

        The search path is then that of the role, and each writing transaction names its
        isolation level. A SET would affect other clients of the pooler.
        """
        if _NO_OPTIONS not in str(refusal):
            return False
        self._takes_settings = False
        return True

    @property
    def endpoint(self) -> Endpoint:
        """The host, the port and the database of the URL; no port if there are several."""
        host, dbname = (self._text(name) for name in ("host", "dbname"))
        port = self._text("port") or "5432"
        return Endpoint(host, int(port) if port.isdecimal() else None, dbname)

    @property
    def role(self) -> str | None:
        """The role of the URL, if it names one."""
        return self._text("user")

    def _text(self, name: str) -> str | None:
        found = self._parameters.get(name)
        return None if found is None else str(found)

    @property
    def host_and_port(self) -> str:
        """The host and the port of the URL."""
        host = self._parameters.get("host", "the local socket")
        return f"{host}:{self._parameters.get('port', 5432)}"

    def __str__(self) -> str:
        return f"{self.host_and_port}/{self._parameters.get('dbname', '')}"
