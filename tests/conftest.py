"""What every test shares."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asyncio: psycopg does not run on trio."""
    return "asyncio"
