"""What the tests of the writer on a healthy database share, and those of the relay."""

from tests.support.publisher.running_relays import sql, writer
from tests.support.writer.fixtures import facts, open_writer, portal, proxy, shared_url, tables, url

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
