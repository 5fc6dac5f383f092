"""The database of the tests of the operator's tools."""

from tests.support.publisher.running_relays import database, shards

__all__ = ["database", "shards"]
