"""The database of the tests of the relay."""

from tests.support.publisher.running_relays import (
    database,
    database_proxy,
    patient_beats,
    shards,
)

__all__ = ["database", "database_proxy", "patient_beats", "shards"]
