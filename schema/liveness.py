"""The leases and the publishers of one read of both tables, and which of them get a share."""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple


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

    `lease` is the length of its leases in seconds. One that `waits` for its broker gets no share.
    """

    owner: str
    seen_at: float
    age: float
    lease: float
    waits: bool = False


class Snapshot(NamedTuple):
    """All leases and all announced publishers, from one read, by the database's clock."""

    leases: Sequence[Lease]
    peers: Sequence[Peer]


PRUNE_AFTER: Final = 10
"""The row of a dead publisher is deleted after this many of its leases."""


def is_alive(age: float, lease: float) -> bool:
    """Whether a publisher that announced itself `age` seconds ago gets a share of the shards.

    A publisher announces itself several times per lease. `lease` is in seconds.
    """
    return age < lease


def is_forgotten(age: float, lease: float) -> bool:
    """Whether the row of a publisher is old enough to be deleted; `age` and `lease` in seconds."""
    return age > PRUNE_AFTER * lease


class _Seen(NamedTuple):
    """A value in the tables, and since when we see it unchanged, by our own clock."""

    value: object
    since: float


class OtherPublishers:
    """The publishers beside `owner` that get a share.

    They are alive, reach their brokers, and were seen with two announcements.
    A publisher that crashes after each start announces itself once per start.
    Without the second announcement, the others would release shards for it
    that it never takes.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._seen: dict[str, _Seen] = {}
        self.names: set[str] = set()

    def see(self, peers: Iterable[Peer], now: float) -> None:
        """Take the announcements of one read; `names` then holds those that get a share."""
        before, self._seen = self._seen, {}
        names, self.names = self.names, set()
        for peer in peers:
            owner = peer.owner
            seen = _seen(before.get(owner), peer.seen_at, now)
            is_silent = not is_alive(max(peer.age, now - seen.since), peer.lease)
            if owner == self._owner or is_silent or peer.waits:
                continue
            self._seen[owner] = seen
            if owner in names or before.get(owner, seen).value != peer.seen_at:
                self.names.add(owner)


class WatchedLeases:
    """When the leases of others end by our own clock: nobody has renewed them for their length.

    The owner of such a lease sends nothing more, whatever the database's clock says. The
    length is that in the owner's announcement. A lease whose owner we never saw announced
    ends by the database's clock alone.
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._lengths: dict[str | None, float] = {}
        self._seen: dict[int, _Seen] = {}

    def see(self, seen: Snapshot, now: float) -> None:
        """Take one read; `now` is a time after its answer."""
        owners = {each.owner for each in seen.leases}
        known = {owner: s for owner, s in self._lengths.items() if owner in owners}
        self._lengths = known | {peer.owner: peer.lease for peer in seen.peers}
        self._seen = {
            each.shard: _seen(self._seen.get(each.shard), each[1:3] + each[4:], now)
            for each in seen.leases
        }

    def end(self, lease: Lease) -> float:
        """When a lease of the last read may be taken if it does not change; maybe infinity."""
        if lease.expires_at is None or lease.owner not in self._lengths:
            return math.inf
        return self._seen[lease.shard].since + self._lengths[lease.owner] + self._grace


def _seen(before: _Seen | None, value: object, now: float) -> _Seen:
    return before if before is not None and before.value == value else _Seen(value, now)
