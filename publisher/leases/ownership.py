"""Which shards this publisher relays: a state machine without I/O.

`protocol` feeds it with what the database answered and carries out its plans.
docs/leases.md describes the protocol and why it is safe. All times are seconds of
the machine's boot-time clock (`boot_time`). The times of a `Snapshot` are seconds
of the database's clock.

A shard in `_held` is owned until its deadline, or draining. No new round works on
a draining shard, and it is released as soon as no round works on it. A shard
leaves `_held` when the database says that this publisher does not own it. Any
other shard is foreign: its lease is free, belongs to another publisher, or the
answer to the statement that took it was lost.
"""

import math
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from dsql_outbox.publisher.settings import PublisherSettings

from .liveness import is_alive, is_forgotten

REST: Final = 10
"""A publisher that left its shards to others rests for this many times `broker_patience`."""


class Lease(NamedTuple):
    """The lease of a shard, as the database holds it.

    `expires_in` is seconds from the moment of the read: negative after the end,
    minus infinity for a free lease.
    """

    shard: int
    owner: str | None
    epoch: int
    expires_in: float


class Peer(NamedTuple):
    """A publisher that announced itself at `seen_at`, `age` seconds before the read.

    `lease` is the length of its leases in seconds; None if it did not write that.
    """

    owner: str
    seen_at: float
    age: float
    lease: float | None


class Snapshot(NamedTuple):
    """All leases and all announced publishers, from one read."""

    leases: Sequence[Lease]
    peers: Sequence[Peer]


class Plan(NamedTuple):
    """The statements to run: each maps a shard to the epoch that its lease must still have.

    `prune` says whether to delete the rows of dead publishers; `again` is the number
    of seconds until the next beat.
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
    """The shards of one publisher; `owner` names this incarnation and is never used again."""

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

    # --- called by the relay -----------------------------------------------------------

    def begin(self, now: float) -> dict[int, int]:
        """Begin a round: the shards that it may work on until `end`, with their epochs."""
        self._busy = {
            shard: held.epoch
            for shard, held in self._held.items()
            if not held.draining and not self.is_stopping and now < held.deadline
        }
        return dict(self._busy)

    def end(self) -> bool:
        """End the round; returns whether shards wait to be released now."""
        self._busy = {}
        return self.is_leaving

    def deadline(self, shard: int) -> float:
        """Until when the round may send messages of a shard; minus infinity if it may not.

        A shard that was lost during the round stays lost for it, even if this
        publisher took it again: the rows that the round has read may be out of date.
        """
        held = self._held.get(shard)
        if held is None or self._busy.get(shard) != held.epoch:
            return -math.inf
        return min(held.deadline, self._stop_by)

    def sendable(self, now: float) -> set[int]:
        """The shards of the running round whose messages may be sent now."""
        return {shard for shard in self._busy if now < self.deadline(shard)}

    def sink_failed(self, now: float) -> None:
        """Note that the broker could not be reached."""
        if self._failing_since is None:
            self._failing_since = now

    def sink_worked(self) -> None:
        """Note that the broker answered."""
        self._failing_since = self._rest_until = None

    def stop(self, now: float) -> None:
        """Start no more rounds; the running one may take `drain` seconds more."""
        self._stop_by = min(self._stop_by, now + self._settings.drain)

    # --- called by the beat ------------------------------------------------------------

    @property
    def shards(self) -> frozenset[int]:
        """The shards that this publisher owned when the database answered last."""
        return frozenset(self._held)

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop_by < math.inf

    @property
    def is_leaving(self) -> bool:
        """Whether some shard will be released as soon as no round works on it."""
        return self.is_stopping or any(held.draining for held in self._held.values())

    @property
    def is_able(self) -> bool:
        """Whether this publisher may announce itself: it goes on, and its broker does not fail."""
        return not self.is_stopping and self._failing_since is None

    def plan(self, seen: Snapshot, now: float) -> Plan:
        """Decide what to do next; `seen` is the newest answer of the database."""
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
        """Take the answer to a renewal that was sent at `sent_at` or later."""
        for shard in asked:
            if shard in won:
                self._held[shard].deadline = self._deadline(sent_at)
            else:
                del self._held[shard]

    def took(self, asked: Mapping[int, int], won: Collection[int], sent_at: float) -> None:
        """Take the answer to an attempt to take shards that was sent at `sent_at` or later."""
        for shard in won:
            self._held[shard] = _Held(asked[shard] + 1, self._deadline(sent_at))

    def released(self, shards: Iterable[int]) -> None:
        """Take the answer to a release: the database has freed these shards."""
        for shard in shards:
            del self._held[shard]

    # --- decisions ---------------------------------------------------------------------

    def _deadline(self, sent_at: float) -> float:
        """The end of a lease minus the margin.

        The count starts before the statement is sent. The database counts from the
        time when it runs the statement, which is later, so the deadline comes first.
        """
        return sent_at + self._settings.lease - self._settings.margin

    def _others(self, peers: Iterable[Peer]) -> set[str]:
        """The other publishers that get a share: alive, and seen with two announcements.

        A publisher that crashes after each start announces itself once per start.
        Without the second announcement, the others would release shards for it
        that it never takes.
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
        """Leave the shards to others while only this publisher cannot reach the broker.

        A publisher whose broker fails does not announce itself, so `others` can
        reach theirs. A publisher without shards sends nothing and so cannot find its
        broker working again. After a rest it therefore counts as able.
        """
        patience = self._settings.broker_patience
        if self._rest_until is not None and now >= self._rest_until:
            self._failing_since = self._rest_until = None
        elif not others:
            self._rest_until = None
        elif self._failing_since is not None and now - self._failing_since >= patience:
            self._rest_until = self._rest_until or now + REST * patience

    def _drain(self, share: int) -> None:
        """Drain the shards above the share; those that drain already do not count."""
        staying = [s for s in self._in_order(self._held) if not self._held[s].draining]
        for shard in staying[share:]:
            self._held[shard].draining = True

    def _is_drained(self, shard: int) -> bool:
        return self._held[shard].draining and shard not in self._busy

    def _wanted(self, leases: Iterable[Lease], room: int) -> dict[int, int]:
        """The shards to take, with their epochs, `room` at most.

        A shard may be taken if its lease is free or ended more than `grace` ago. The
        same is true if the database names this publisher as owner: then the answer
        to an earlier attempt was lost.
        """
        epochs = {
            each.shard: each.epoch
            for each in leases
            if each.expires_in < -self._settings.grace
            or (each.owner == self.owner and each.shard not in self._held)
        }
        return {s: epochs[s] for s in self._in_order(epochs)[: max(0, room)]}

    def _again(self, leases: Iterable[Lease]) -> float:
        """Seconds until the next beat: `renew`, or less if a foreign lease can be taken sooner.

        The minimum is a twentieth of `renew`.
        """
        renew, grace = self._settings.renew, self._settings.grace
        waits = [each.expires_in + grace for each in leases if each.owner != self.owner]
        return max(renew / 20, min([renew, *(wait for wait in waits if wait >= 0)]))

    def _in_order(self, shards: Iterable[int]) -> list[int]:
        """The shards in the order of preference of this publisher.

        The order depends on `owner`, so publishers seldom compete for one shard.
        """
        return sorted(shards, key=lambda shard: zlib.crc32(f"{self.owner} {shard}".encode()))
