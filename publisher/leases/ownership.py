"""Which shards this publisher relays: facts in, actions out, told the time.

Nothing here does I/O. `_beat` brings the facts and carries the actions out;
docs/leases.md tells the protocol and why it is safe. All times are seconds of
this machine's boot-time clock, but for those of a `Snapshot`, which are the
database's.

A shard that is not in `_held` is foreign: its lease is free, another's, or the
answer to our taking it was lost. One in `_held` is owned until its own
deadline, or draining: no new round works on it, and when none does any more it
is released. It leaves `_held` when the database says that it is not ours.
"""

import math
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dsql_outbox.publisher.settings import PublisherSettings

from .liveness import is_alive, is_forgotten

REST: Final = 10
"""How many times `broker_patience` one stays away after giving its shards to others."""


class Lease(NamedTuple):
    """A shard's lease as the database holds it.

    `expires_in` is seconds from the moment it was read; minus infinity when free.
    """

    shard: int
    owner: str | None
    epoch: int
    expires_in: float


class Peer(NamedTuple):
    """A publisher that announced itself at `seen_at`, `age` seconds before it was read.

    `lease` is how long its leases last; None if it has not written that.
    """

    owner: str
    seen_at: float
    age: float
    lease: float | None


class Snapshot(NamedTuple):
    """All leases and all publishers, from one read."""

    leases: Sequence[Lease]
    peers: Sequence[Peer]


class Plan(NamedTuple):
    """What to ask of the database: shards with the epoch that each must still have.

    `again` is how many seconds later to look again.
    """

    renew: Mapping[int, int]
    release: Mapping[int, int]
    take: Mapping[int, int]
    prune: bool
    again: float


@dataclass(slots=True)
class _Held:
    epoch: int
    deadline: float
    draining: bool = False


class Ownership:
    """The shards of one publisher; `owner` is this incarnation of it and never used again."""

    def __init__(self, owner: str, settings: PublisherSettings) -> None:
        self.owner = owner
        self._settings = settings
        self._held: dict[int, _Held] = {}
        self._busy: dict[int, int] = {}
        self._seen_at: dict[str, float] = {}
        self._proven: set[str] = set()
        self._failing_since: float | None = None
        self._rest_until: float | None = None
        self._stop_by = math.inf

    # --- what the relay asks and tells -------------------------------------------------

    def begin(self, now: float) -> dict[int, int]:
        """The shards that a round may work on from now to `end`, with their epochs."""
        self._busy = {
            shard: held.epoch
            for shard, held in self._held.items()
            if not held.draining and not self.is_stopping and now < held.deadline
        }
        return dict(self._busy)

    def end(self) -> bool:
        """The round is over; returns whether something waits to be released now."""
        self._busy = {}
        return self.is_leaving

    def deadline(self, shard: int) -> float:
        """Until when the round may send messages of a shard.

        In the past when the shard was lost, be it for a moment: what the round
        has read is then old news.
        """
        held = self._held.get(shard)
        if held is None or self._busy.get(shard) != held.epoch:
            return -math.inf
        return min(held.deadline, self._stop_by)

    def sendable(self, now: float) -> set[int]:
        """The shards of the round whose messages may be sent now."""
        return {shard for shard in self._busy if now < self.deadline(shard)}

    def sink_failed(self, now: float) -> None:
        """The broker could not be reached."""
        if self._failing_since is None:
            self._failing_since = now

    def sink_worked(self) -> None:
        """The broker answered."""
        self._failing_since = self._rest_until = None

    def stop(self, now: float) -> None:
        """Begin no round any more; the one that runs may take `drain` seconds."""
        self._stop_by = min(self._stop_by, now + self._settings.drain)

    # --- what the beat asks and tells --------------------------------------------------

    @property
    def shards(self) -> frozenset[int]:
        """The shards that were ours when the database answered last."""
        return frozenset(self._held)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_by < math.inf

    @property
    def is_leaving(self) -> bool:
        """Whether something is released as soon as no round works on it."""
        return self.is_stopping or any(held.draining for held in self._held.values())

    @property
    def is_able(self) -> bool:
        """Whether others may count on us: we go on, and our broker does not fail."""
        return not self.is_stopping and self._failing_since is None

    def plan(self, seen: Snapshot, now: float) -> Plan:
        """Decide, by what the database has just said."""
        ours = {each.shard: each.epoch for each in seen.leases if each.owner == self.owner}
        self._held = {s: held for s, held in self._held.items() if ours.get(s) == held.epoch}
        others = self._others(seen.peers)
        self._rest(others, now)
        away = self.is_stopping or self._rest_until is not None
        share = 0 if away else math.ceil(len(seen.leases) / (len(others) + 1))
        self._drain(share)
        release = {s: held.epoch for s, held in self._held.items() if self._is_drained(s)}
        return Plan(
            renew={s: held.epoch for s, held in self._held.items() if s not in release},
            release=release,
            take=self._wanted(seen.leases, share - len(self._held)),
            prune=any(is_forgotten(peer.age, peer.lease) for peer in seen.peers),
            again=self._again(seen.leases),
        )

    def renewed(self, asked: Iterable[int], won: Collection[int], sent_at: float) -> None:
        """The answer to a renewal that was sent at `sent_at`, or after it."""
        for shard in asked:
            if shard in won:
                self._held[shard].deadline = self._deadline(sent_at)
            else:
                del self._held[shard]

    def took(self, asked: Mapping[int, int], won: Collection[int], sent_at: float) -> None:
        """The answer to a taking that was sent at `sent_at`, or after it."""
        for shard in won:
            self._held[shard] = _Held(asked[shard] + 1, self._deadline(sent_at))

    def released(self, shards: Iterable[int]) -> None:
        """The database has let these go."""
        for shard in shards:
            del self._held[shard]

    # --- decisions ---------------------------------------------------------------------

    def _deadline(self, sent_at: float) -> float:
        """The database reckons from a later moment, when it got what was sent."""
        return sent_at + self._settings.lease - self._settings.margin

    def _others(self, peers: Iterable[Peer]) -> set[str]:
        """Who shares the work: alive, and seen to be alive at two times.

        One that dies as soon as it starts, again and again, must not make
        others hand shards over that it never takes.
        """
        alive = [p for p in peers if is_alive(p.age, p.lease) and p.owner != self.owner]
        self._proven = {
            p.owner
            for p in alive
            if p.owner in self._proven or self._seen_at.get(p.owner, p.seen_at) != p.seen_at
        }
        self._seen_at = {p.owner: p.seen_at for p in alive}
        return self._proven

    def _rest(self, others: Collection[str], now: float) -> None:
        """Leave the shards to others while only our own way to the broker is broken.

        Who fails does not announce itself, so `others` are those who do not. To
        whom nothing is given nothing can fail: after a rest we count as able.
        """
        patience = self._settings.broker_patience
        if self._rest_until is not None and now >= self._rest_until:
            self._failing_since = self._rest_until = None
        elif not others:
            self._rest_until = None
        elif self._failing_since is not None and now - self._failing_since >= patience:
            self._rest_until = self._rest_until or now + REST * patience

    def _drain(self, share: int) -> None:
        """Let go of what is over our share; what drains already counts as gone."""
        staying = [s for s in self._in_order(self._held) if not self._held[s].draining]
        for shard in staying[share:]:
            self._held[shard].draining = True

    def _is_drained(self, shard: int) -> bool:
        return self._held[shard].draining and shard not in self._busy

    def _wanted(self, leases: Iterable[Lease], room: int) -> dict[int, int]:
        """Shards to take: free, long expired, or ours by a taking whose answer was lost."""
        epochs = {
            each.shard: each.epoch
            for each in leases
            if each.expires_in < -self._settings.grace
            or (each.owner == self.owner and each.shard not in self._held)
        }
        return {s: epochs[s] for s in self._in_order(epochs)[: max(0, room)]}

    def _again(self, leases: Iterable[Lease]) -> float:
        """After `renew`, or sooner if another's lease can be taken sooner."""
        renew, grace = self._settings.renew, self._settings.grace
        waits = [each.expires_in + grace for each in leases if each.owner != self.owner]
        return max(renew / 20, min([renew, *(wait for wait in waits if wait >= 0)]))

    def _in_order(self, shards: Iterable[int]) -> list[int]:
        """Each publisher prefers other shards, so that few want the same."""
        return sorted(shards, key=lambda shard: zlib.crc32(f"{self.owner} {shard}".encode()))
