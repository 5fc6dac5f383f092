"""Where a URL leads: the parameters that open a connection there."""

import os
import re
from typing import Final, Literal, Protocol

import psycopg
from psycopg import IsolationLevel
from psycopg.conninfo import conninfo_to_dict

from .errors import SettingsError
from .redaction import has_unclear_login

Isolation = Literal["read committed", "repeatable read"]

_LEVELS: Final = {
    "read committed": IsolationLevel.READ_COMMITTED,
    "repeatable read": IsolationLevel.REPEATABLE_READ,
}

ConnectParameters = dict[str, str | int]

TCP_USER_TIMEOUT_MS: Final = 10_000

_PATH: Final = "-c search_path=pg_catalog"
"""Whoever may create in a schema of the path could give us operators that run as our role."""

_NO_OPTIONS: Final = "unsupported startup parameter"
"""Part of a refusal of pgbouncer, which takes no `options`."""

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)


class Target(Protocol):
    """One database, reachable by parameters that may change with every connection."""

    def parameters(self, *, role_path: bool = False) -> ConnectParameters:
        """What libpq needs to connect, in a thread that may block.

        The session resolves names and operators in ``pg_catalog`` only, or with
        `role_path` by the search path of the role.
        """
        ...

    async def parameters_async(self, *, role_path: bool = False) -> ConnectParameters:
        """The same, without blocking the event loop."""
        ...

    def renew(self, refusal: psycopg.OperationalError) -> bool:
        """Whether to connect once more after this refusal, as `parameters` now has better ones."""
        ...

    @property
    def begins_at(self) -> IsolationLevel | None:
        """The level that each transaction must name, as it cannot be a setting of the session."""
        ...

    def __str__(self) -> str:
        """Host and database, without any secret."""
        ...


class PostgresTarget:
    """A PostgreSQL server, by URL or by libpq's key=value text."""

    def __init__(self, url: str, isolation: Isolation | None) -> None:
        try:
            found = conninfo_to_dict(url)
        except (psycopg.ProgrammingError, UnicodeDecodeError) as error:
            # libpq's text may quote the URL, and a URL may hold a password.
            raise SettingsError("the database URL is not one that libpq can read") from (
                None if "@" in url or "password" in url else error
            )
        address = f"{found.get('host')} {found.get('port')}"
        if "@" in address or has_unclear_login(url):
            # The rest of a password: the driver would show it as a host, a port or a database.
            raise SettingsError(
                "in the password of the database URL, @ : / ? # and blanks must be written as "
                "%40 %3A %2F %3F %23 %20"
            )
        self._parameters: ConnectParameters = {k: v for k, v in found.items() if v is not None}
        self._parameters.setdefault("application_name", "dsql-outbox")
        self._parameters.setdefault("tcp_user_timeout", TCP_USER_TIMEOUT_MS)
        # libpq reads the environment only when the parameter is not given.
        self._options = str(self._parameters.pop("options", os.environ.get("PGOPTIONS", "")))
        self._isolation = isolation
        self._takes_settings = True

    @property
    def begins_at(self) -> IsolationLevel | None:
        """The level of `isolation`, where a pooler does not take it as a setting."""
        if self._isolation is None or self._takes_settings:
            return None
        return _LEVELS[self._isolation]

    def parameters(self, *, role_path: bool = False) -> ConnectParameters:
        """The parameters of the URL, with the settings of the session in `options`."""
        options = [self._options]
        if self._takes_settings:
            if self._isolation is not None:
                level = self._isolation.replace(" ", "\\ ")
                options.append(f"-c default_transaction_isolation={level}")
            if not role_path:
                options.append(_PATH)
        found = " ".join(filter(None, options))
        return self._parameters | ({"options": found} if found else {})

    async def parameters_async(self, *, role_path: bool = False) -> ConnectParameters:
        """The same; nothing here blocks."""
        return self.parameters(role_path=role_path)

    def renew(self, refusal: psycopg.OperationalError) -> bool:
        """Go without settings of the session, where a pooler takes no options.

        The path is then the role's own, and each transaction that writes names its
        level. A SET would reach other clients of the pooler.
        """
        if _NO_OPTIONS not in str(refusal):
            return False
        self._takes_settings = False
        return True

    def __str__(self) -> str:
        host = self._parameters.get("host", "the local socket")
        port = self._parameters.get("port", 5432)
        return f"{host}:{port}/{self._parameters.get('dbname', '')}"


def target_of(url: str, isolation: Isolation | None) -> Target:
    """The target that a URL names; raises `SettingsError` for a kind that we don't know."""
    scheme = _SCHEME.match(url)
    match scheme[1].lower() if scheme else "":
        case "postgresql" | "postgres" | "":
            if not url:
                raise SettingsError("the database URL is empty")
            return PostgresTarget(url, isolation)
        case "dsql":
            from .dsql_target import DsqlTarget  # noqa: PLC0415 - brings boto3

            if isolation == "read committed":
                raise SettingsError("Aurora DSQL knows one isolation level, repeatable read")
            return DsqlTarget(url)
        case "embedded":
            raise SettingsError(
                "embedded: is for the command line and for tests; "
                "in code use dsql_outbox.testing.EmbeddedPostgres"
            )
        case kind:
            hidden = "@" in url and "://" not in url  # what looks like a scheme may be a login
            shown = "" if hidden else f" {kind}:"
            raise SettingsError(
                f"unknown kind of database{shown} (known: postgresql://, dsql://, embedded:)"
            )
