"""The rows that the kept version left. Without a kept pair no test of this folder is collected."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from tests.support.upgrade.kept_pair import DUMP, load

collect_ignore_glob = [] if DUMP.exists() else ["test_*.py"]


@pytest.fixture
def dumped(database_url: str) -> str:
    """The URL of a database with these rows, as the kept version left them."""
    load(database_url)
    return database_url


@pytest.fixture
def sql(dumped: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the library's."""
    with psycopg.connect(dumped, autocommit=True) as connection:
        yield connection
