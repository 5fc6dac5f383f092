"""PostgreSQL's client library: without it the driver cannot be imported."""

from importlib import import_module

from .errors import MissingExtra

try:
    import_module("psycopg")
except ImportError as error:  # ten lines, of what was tried and where
    raise MissingExtra("binary", "psycopg", instead="the system's libpq") from error
