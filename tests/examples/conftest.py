"""What the tests of the examples share. Each example has a file `test_<name>.py` of its own."""

from tests.support.writer.fixtures import shared_url, tables, url

__all__ = ["shared_url", "tables", "url"]
