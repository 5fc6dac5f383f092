"""The scheme of a database URL, and the address that it stands for."""

import re
from collections.abc import Callable
from typing import Final

from dsql_outbox.outbox.errors import SettingsError

from .address import Address, Isolation
from .postgres_address import PostgresAddress

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)


def address_of(
    url: str, isolation: Isolation | None, password: Callable[[], str] | None = None
) -> Address:
    """Return the address in a URL. Raises `SettingsError` for an unknown scheme."""
    scheme = _SCHEME.match(url)
    match scheme[1].lower() if scheme else "":
        case "postgresql" | "postgres" | "":
            if not url:
                raise SettingsError("the database URL is empty")
            return PostgresAddress(url, isolation, password)
        case "dsql":
            from .dsql_address import DsqlAddress  # noqa: PLC0415 - imports boto3

            if isolation == "read committed":
                raise SettingsError("Aurora DSQL knows one isolation level, repeatable read")
            if password is not None:
                raise SettingsError("Database.password is not for dsql://: IAM signs a token")
            return DsqlAddress(url)
        case "embedded":
            raise SettingsError(
                "embedded: is for the command line and for tests; "
                "in code use dsql_outbox.testing.EmbeddedPostgres"
            )
        case kind:
            hidden = "@" in url and "://" not in url  # the apparent scheme may be part of a login
            shown = "" if hidden else f" {kind}:"
            driver = "; leave out the driver behind the +" if "+" in shown else ""
            known = "postgresql://, dsql://, embedded:"
            raise SettingsError(f"unknown kind of database{shown}, there are {known}{driver}")
