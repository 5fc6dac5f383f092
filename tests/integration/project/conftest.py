"""What the tests of the examples share."""

from collections.abc import Iterator

import pytest
from tests.support.proxy.postgres_proxy import OutboxProxy


@pytest.fixture
def faulty(url: str) -> Iterator[OutboxProxy]:
    """A proxy in front of the database of `url`."""
    with OutboxProxy(url) as proxy:
        yield proxy
