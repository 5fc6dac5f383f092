"""What the tests of the writer on a healthy database share."""

from tests._support.fixtures import facts, open_writer, portal, proxy, shared_url, tables, url

__all__ = ["facts", "open_writer", "portal", "proxy", "shared_url", "tables", "url"]
