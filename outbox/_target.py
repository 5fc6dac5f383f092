"""Where a URL leads: the parameters that open a connection there."""

from typing import Final, Literal, Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict

from ._errors import SettingsError

Isolation = Literal["read committed", "repeatable read"]

ConnectParameters = dict[str, str | int]

_TCP_USER_TIMEOUT_MS: Final = 10_000


class Target(Protocol):
    """One database, reachable by parameters that may change with every connection."""

    def parameters(self) -> ConnectParameters:
        """What libpq needs to connect, in a thread that may block."""
        ...

    async def parameters_async(self) -> ConnectParameters:
        """The same, without blocking the event loop."""
        ...

    def __str__(self) -> str:
        """Host and database, without any secret."""
        ...


class PostgresTarget:
    """A PostgreSQL server, by URL or by libpq's key=value text."""

    def __init__(self, url: str, isolation: Isolation | None) -> None:
        try:
            found = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            # libpq's text may quote the URL, and a URL may hold a password.
            raise SettingsError("the database URL is not one that libpq can read") from (
                None if "@" in url or "password" in url else error
            )
        self._parameters: ConnectParameters = {k: v for k, v in found.items() if v is not None}
        self._parameters.setdefault("application_name", "dsql-outbox")
        self._parameters.setdefault("tcp_user_timeout", _TCP_USER_TIMEOUT_MS)
        if isolation is not None:
            level = isolation.replace(" ", "\\ ")
            options = f"{found.get('options') or ''} -c default_transaction_isolation={level}"
            self._parameters["options"] = options.strip()

    def parameters(self) -> ConnectParameters:
        """The parameters of the URL; they never change."""
        return self._parameters

    async def parameters_async(self) -> ConnectParameters:
        """The parameters of the URL; they never change."""
        return self._parameters

    def __str__(self) -> str:
        host = self._parameters.get("host", "the local socket")
        port = self._parameters.get("port", 5432)
        return f"{host}:{port}/{self._parameters.get('dbname', '')}"


def target_of(url: str, isolation: Isolation | None) -> Target:
    """The target that a URL names; raises `SettingsError` for a kind that we don't know."""
    scheme = url.partition(":")[0] if ":" in url.partition("=")[0] else ""
    match scheme:
        case "postgresql" | "postgres" | "":
            if not url:
                raise SettingsError("the database URL is empty")
            return PostgresTarget(url, isolation)
        case "dsql":
            from ._dsql import DsqlTarget  # noqa: PLC0415 - brings boto3

            if isolation == "read committed":
                raise SettingsError("Aurora DSQL knows one isolation level, repeatable read")
            return DsqlTarget(url)
        case "embedded":
            raise SettingsError(
                "embedded: is for the command line and for tests; "
                "in code use dsql_outbox.testing.EmbeddedPostgres"
            )
        case _:
            raise SettingsError(
                f"unknown kind of database {scheme}: (known: postgresql://, dsql://, embedded:)"
            )
