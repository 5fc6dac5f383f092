"""The database of an alias, for the library's own connections: the one that Django connects to."""

from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from psycopg import pq
from psycopg.conninfo import make_conninfo

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError

from .settings import outbox_settings

VENDORS: Final = ("postgresql", "dsql")
"""The vendors of Django's backends, of PostgreSQL and of AWS's for Aurora DSQL."""


def connection_of(alias: str) -> Any:
    """Return Django's connection of an alias in this thread.

    Raises `SettingsError` unless the alias is one that holds the tables.
    """
    aliases = outbox_settings().databases
    if alias not in aliases:
        raise SettingsError(
            f"the database {alias} has no outbox: its tables are in {', '.join(aliases)}; "
            'name it in DSQL_OUTBOX["DATABASES"], then run manage.py migrate'
        )
    return connections[alias]


def database_url(alias: str) -> str:
    """Return the address that Django connects to, with its password, for the library.

    After Django has created a test database, it is the address of that one. Raises
    `SettingsError` for another database than PostgreSQL and Aurora DSQL.
    """
    connection = connection_of(alias)
    if connection.vendor not in VENDORS:
        raise SettingsError(
            f"the database {alias} is of {connection.settings_dict['ENGINE']}, and the outbox "
            "needs PostgreSQL or Aurora DSQL"
        )
    try:
        given: dict[str, Any] = connection.get_connection_params()
    except ImproperlyConfigured as error:
        raise SettingsError(f"the database {alias}: {error}") from error
    if connection.vendor == "dsql":
        port = f":{given['port']}" if given.get("port") else ""
        return f"dsql://{given.get('user')}@{given.get('host')}{port}/{given['dbname']}"
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    found = {name: str(value) for name, value in given.items() if name in known}
    if role := connection.settings_dict["OPTIONS"].get("assume_role"):
        found["options"] = f"{found.get('options', '')} -c role={role}".strip()
    return make_conninfo("", **found)


def database_of(alias: str) -> Database:
    """Return the database of an alias. Raises `SettingsError` as above."""
    return Database(database_url(alias), schema=outbox_settings().schema)
