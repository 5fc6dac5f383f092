"""The database of the tests of the operator's tools."""

from collections.abc import AsyncGenerator, Iterator

import psycopg
import pytest
from tests.support.publisher.running_relays import (
    database,
    database_proxy,
    patient_beats,
    shards,
)

from dsql_outbox.operations import Targets
from dsql_outbox.outbox import Database

__all__ = ["database", "database_proxy", "patient_beats", "shards"]


@pytest.fixture
def holder(outbox_url: str) -> Iterator[psycopg.Connection]:
    """A connection whose transactions are the test's."""
    with psycopg.connect(outbox_url) as connection:
        yield connection


@pytest.fixture
async def targets(database: Database) -> AsyncGenerator[Targets]:
    """What adds, fills and drops targets."""
    async with Targets(database) as targets:
        yield targets
