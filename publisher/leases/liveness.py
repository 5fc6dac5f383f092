"""Which publishers count as alive: each is judged by the lease in its own row."""

from typing import Final

from dsql_outbox.publisher.settings import DEFAULT_LEASE

PRUNE_AFTER: Final = 10
"""The row of a dead publisher is deleted after this many of its leases."""


def is_alive(age: float, lease: float | None) -> bool:
    """Whether a publisher that announced itself `age` seconds ago gets a share of the shards.

    A publisher announces itself several times per lease. `lease` is in seconds, or
    None for a publisher of a version that did not write it.
    """
    return age < _seconds(lease)


def is_forgotten(age: float, lease: float | None) -> bool:
    """Whether the row of a publisher is old enough to be deleted; `age` and `lease` in seconds."""
    return age > PRUNE_AFTER * _seconds(lease)


def _seconds(lease: float | None) -> float:
    return DEFAULT_LEASE if lease is None else lease
