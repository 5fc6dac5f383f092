"""What the tests of the examples share. Each example has a file `test_<name>.py` of its own."""

from tests.support.writer.fixtures import proxy, tables, url

__all__ = ["proxy", "tables", "url"]
