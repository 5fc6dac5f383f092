"""The answer to one read of both tables: all leases, and all announced publishers."""

from collections.abc import Sequence
from typing import NamedTuple


class Lease(NamedTuple):
    """The lease of a shard, as the database holds it.

    `expires_in` is seconds from the moment of the read: negative after the end,
    minus infinity for a free lease. `expires_at` is the same moment in seconds since 1970; it
    changes with each renewal. None for a free lease.
    """

    shard: int
    owner: str | None
    epoch: int
    expires_in: float
    expires_at: float | None = None


class Peer(NamedTuple):
    """A publisher that announced itself at `seen_at`, `age` seconds before the read.

    `lease` is the length of its leases in seconds; None if it did not write that.
    """

    owner: str
    seen_at: float
    age: float
    lease: float | None


class Snapshot(NamedTuple):
    """All leases and all announced publishers, from one read, by the database's clock."""

    leases: Sequence[Lease]
    peers: Sequence[Peer]
