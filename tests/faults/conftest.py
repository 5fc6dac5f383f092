"""What the tests of the writer under faults share."""

from tests.support.writer.fixtures import facts, open_writer, portal, proxy, tables, url

__all__ = ["facts", "open_writer", "portal", "proxy", "tables", "url"]
