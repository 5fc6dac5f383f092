"""Which publishers count as alive: by the lease that each has written of itself."""

from typing import Final

DEFAULT_LEASE: Final = 10.0
"""Seconds: `PublisherSettings.lease`, and that of a publisher that has written none."""

PRUNE_AFTER: Final = 10
"""Leases after which the row of a publisher that died is deleted."""


def is_alive(age: float, lease: float | None) -> bool:
    """Whether a publisher that announced itself `age` seconds ago counts for the shares.

    It announces itself several times a lease. `lease` is None for one of a version
    that did not write it.
    """
    return age < _seconds(lease)


def is_forgotten(age: float, lease: float | None) -> bool:
    """Whether the row of a publisher has waited long enough to be deleted."""
    return age > PRUNE_AFTER * _seconds(lease)


def _seconds(lease: float | None) -> float:
    return DEFAULT_LEASE if lease is None else lease
