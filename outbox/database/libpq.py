"""Import the driver, and raise `MissingExtra` if PostgreSQL's client library is missing."""

from importlib import import_module

from dsql_outbox.outbox.errors import MissingExtra

try:
    import_module("psycopg")
except ImportError as error:  # psycopg's own text has ten lines and names no command
    raise MissingExtra("binary", "psycopg", instead="the system's libpq") from error
