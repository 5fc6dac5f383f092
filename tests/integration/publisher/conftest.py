"""The database of the tests of the relay."""

from tests.support.publisher.running_relays import database, database_proxy, shards

__all__ = ["database", "database_proxy", "shards"]
