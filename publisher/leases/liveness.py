"""Judges which publishers are alive, each by the lease in its own row."""

from collections.abc import Iterable
from typing import Final

from dsql_outbox.publisher.settings import DEFAULT_LEASE

from .snapshot import Peer

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


class OtherPublishers:
    """The publishers beside `owner` that get a share: alive, and seen with two announcements.

    A publisher that crashes after each start announces itself once per start.
    Without the second announcement, the others would release shards for it
    that it never takes.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._seen_at: dict[str, float] = {}
        self.names: set[str] = set()

    def see(self, peers: Iterable[Peer]) -> None:
        """Take the announcements of one read; `names` then holds those that get a share."""
        alive = [p for p in peers if is_alive(p.age, p.lease) and p.owner != self._owner]
        self.names = {
            p.owner
            for p in alive
            if p.owner in self.names or self._seen_at.get(p.owner, p.seen_at) != p.seen_at
        }
        self._seen_at = {p.owner: p.seen_at for p in alive}


def _seconds(lease: float | None) -> float:
    return DEFAULT_LEASE if lease is None else lease
