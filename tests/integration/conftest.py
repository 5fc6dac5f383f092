"""What the tests of the writer on a healthy database share, and those of the relay."""

from tests._support.fixtures import facts, open_writer, portal, proxy, shared_url, tables, url
from tests._support.relays import sql, writer

__all__ = [
    "facts",
    "open_writer",
    "portal",
    "proxy",
    "shared_url",
    "sql",
    "tables",
    "url",
    "writer",
]
