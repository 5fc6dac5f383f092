"""The database of the tests of the relay."""

from tests.support.publisher.running_relays import database, shards

__all__ = ["database", "shards"]
