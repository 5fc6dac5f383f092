"""Decides which shards this publisher relays: a state machine without I/O.

`protocol` feeds it with the database's answers and carries out its plans.
docs/relay.md describes the protocol and why it is safe. All times are seconds of
the machine's boot-time clock (`boot_time`). The times of a `Snapshot` are seconds
of the database's clock.

A shard in `_held` is owned until its deadline, or draining. No new message of a draining
shard is sent. The shard is released as soon as it is not busy: none of its messages is on its
way, and none of its rows waits to be deleted, recorded, buried or applied. A shard leaves
`_held` when the database says that this publisher does not own it. Any other shard is foreign:
its lease is free, belongs to another publisher, or the answer to the statement that took it was
lost.

A shard that was lost and taken again has another epoch. Rows that were read under the old one
may be out of date, so they may not be sent.
"""

import math
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from dsql_outbox.publisher.tuned_settings import TunedSettings
from dsql_outbox.schema.liveness import (
    Lease,
    OtherPublishers,
    Snapshot,
    WatchedLeases,
    is_forgotten,
)

REST: Final = 10
"""A publisher that left its shards to others rests for this many times `broker_patience`."""

_AWAITS: Final = 0.1
"""While it awaits shards of others, a publisher beats after this part of `renew`."""


class Plan(NamedTuple):
    """The statements to run: each maps a shard to the epoch that its lease must still have.

    `renew` is for a beat that has not renewed yet. `ended` has the leases of `take` that ended
    by our own clock, with the `expires_at` that each must still have. `prune` says whether to
    delete the rows of dead publishers; `again` is the seconds until the next beat.
    """

    renew: Mapping[int, int]
    release: Mapping[int, int]
    take: Mapping[int, int]
    ended: Mapping[int, float]
    prune: bool
    again: float


@dataclass(slots=True)
class _Held:
    epoch: int
    deadline: float
    draining: bool = False


class Ownership:
    """The shards of one publisher; `owner` names this incarnation and is never used again.

    `has_sink` says that its sink is open. Until then it gets no share, however long that lasts.
    """

    def __init__(self, owner: str, settings: TunedSettings, *, has_sink: bool = True) -> None:
        self.owner = owner
        self._settings = settings
        self._held: dict[int, _Held] = {}
        self._share_seen = 0
        self._others = OtherPublishers(owner)
        self._watched = WatchedLeases(settings.grace)
        self._failing_since: float | None = None
        self._rest_until: float | None = None
        self.has_sink = has_sink
        self.stop_by = math.inf
        """When every call of the sink must have ended; infinity before `stop`."""

    # --- called by the relay -----------------------------------------------------------

    def usable(self, now: float) -> dict[int, int]:
        """The shards that may be read and sent now, with the epochs of their leases."""
        return {s: held.epoch for s, held in self._held.items() if self._is_open(held, now)}

    def unowned(self, now: float) -> int:
        """How many shards of its share it may not send now."""
        return max(0, self._share_seen - len(self.usable(now)))

    def may_send(self, shard: int, epoch: int, now: float) -> bool:
        """Whether a message may be sent now that was read under this epoch."""
        held = self._held.get(shard)
        return held is not None and held.epoch == epoch and self._is_open(held, now)

    def has_lease(self, shard: int, epoch: int, now: float) -> bool:
        """Whether the lease lasts that was taken under this epoch, also while it drains."""
        held = self._held.get(shard)
        return held is not None and held.epoch == epoch and now < held.deadline

    def deadline(self, shard: int, epoch: int) -> float:
        """Until when a message may be on its way that was sent under this epoch.

        It is minus infinity if the lease was lost. A drain does not move it.
        """
        held = self._held.get(shard)
        if held is None or held.epoch != epoch:
            return -math.inf
        return min(held.deadline, self.stop_by)

    def note_sink_failure(self, now: float) -> None:
        """Record that the broker could not be reached."""
        if self._failing_since is None:
            self._failing_since = now

    def note_sink_answer(self) -> None:
        """Record that the broker answered, or that the sink was opened for the first time."""
        self._failing_since = self._rest_until = None
        self.has_sink = True

    def stop(self, now: float) -> None:
        """Stop sending. Messages in flight may take `drain` seconds more."""
        self.stop_by = min(self.stop_by, now + self._settings.drain)

    # --- called by the beat ------------------------------------------------------------

    @property
    def shards(self) -> frozenset[int]:
        """The shards that this publisher owned when the database answered last."""
        return frozenset(self._held)

    @property
    def soonest(self) -> float:
        """The seconds between two beats, at least."""
        return self._settings.renew / 20

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self.stop_by < math.inf

    @property
    def leaving(self) -> set[int]:
        """The shards to release as soon as they are not busy."""
        return {s for s, held in self._held.items() if held.draining or self.is_stopping}

    @property
    def is_able(self) -> bool:
        """Whether this publisher may announce itself: it is not stopped, and its broker works."""
        return not self.is_stopping and self.has_sink and self._failing_since is None

    def renewal(self, busy: Collection[int]) -> dict[int, int]:
        """The leases to renew, with their epochs: all but those to release now."""
        return {s: h.epoch for s, h in self._held.items() if not h.draining or s in busy}

    def plan(
        self, seen: Snapshot, now: float, *, busy: Collection[int] = (), progresses: bool = True
    ) -> Plan:
        """Decide what to do next; `seen` is the newest answer of the database.

        `busy` are the shards with a message on its way, or with a row whose outcome is not
        settled. Without progress nothing is renewed or taken, so the leases end and other
        publishers take over.
        """
        ours = {each.shard: each.epoch for each in seen.leases if each.owner == self.owner}
        self._held = {s: held for s, held in self._held.items() if ours.get(s) == held.epoch}
        self._others.see(seen.peers, now)
        self._watched.see(seen, now)
        self._rest(now)
        share = self._share_seen = self._share(seen.leases)
        self._drain(share)
        renew = self.renewal(busy)
        ended = {
            each.shard: each.expires_at
            for each in seen.leases
            if each.expires_at is not None and now >= self._watched.end(each)
        }
        take = (
            self._shards_to_take(seen.leases, ended, share - len(self._held)) if progresses else {}
        )
        return Plan(
            renew=renew if progresses else {},
            release={s: h.epoch for s, h in self._held.items() if s not in renew},
            take=take,
            ended={shard: ended[shard] for shard in take if shard in ended},
            prune=any(is_forgotten(peer.age, peer.lease) for peer in seen.peers),
            again=self._seconds_to_next_beat(
                seen.leases, now, is_short=progresses and len(self._held) + len(take) < share
            ),
        )

    def note_renewal(self, asked: Iterable[int], won: Collection[int], sent_at: float) -> None:
        """Take the answer to a renewal that was sent at `sent_at` or later."""
        for shard in asked:
            if shard in won:
                self._held[shard].deadline = self._deadline(sent_at)
            else:
                del self._held[shard]

    def note_taken(self, asked: Mapping[int, int], won: Collection[int], sent_at: float) -> None:
        """Take the answer to an attempt to take shards that was sent at `sent_at` or later."""
        for shard in won:
            self._held[shard] = _Held(asked[shard] + 1, self._deadline(sent_at))

    def note_release(self, shards: Iterable[int]) -> None:
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

    def _share(self, leases: Collection[Lease]) -> int:
        """How many shards this publisher should own.

        Each gets the quotient. The remainder goes to those that own more already, so that no shard
        moves that need not, and then to those whose names come first. All publishers see the same
        leases and names, so they agree, and the shares add up to all shards.
        """
        if self.is_stopping or not self.has_sink or self._rest_until is not None:
            return 0
        names = {self.owner, *self._others.names}
        quotient, rest = divmod(len(leases), len(names))
        owned = Counter(each.owner for each in leases)
        ranks = sorted(names, key=lambda name: (owned[name] <= quotient, name))
        return quotient + (self.owner in ranks[:rest])

    def _rest(self, now: float) -> None:
        """Leave the shards to others while only this publisher cannot reach the broker.

        A publisher whose broker fails announces that it waits, so the others can reach theirs. It
        asks its broker by empty calls meanwhile, and an answer ends the rest. In any case it counts
        as able after it.
        """
        patience = self._settings.broker_patience
        if self._rest_until is not None and now >= self._rest_until:
            self._failing_since = self._rest_until = None
        elif not self._others.names:
            self._rest_until = None
        elif self._failing_since is not None and now - self._failing_since >= patience:
            self._rest_until = self._rest_until or now + REST * patience

    def _drain(self, share: int) -> None:
        """Drain the shards above the share; those that drain already do not count."""
        staying = [s for s in self._in_order(self._held) if not self._held[s].draining]
        for shard in staying[share:]:
            self._held[shard].draining = True

    def _is_open(self, held: _Held, now: float) -> bool:
        """Whether messages of a shard may be sent now."""
        return not held.draining and not self.is_stopping and now < held.deadline

    def _shards_to_take(
        self, leases: Iterable[Lease], ended: Collection[int], room: int
    ) -> dict[int, int]:
        """The shards to take, with their epochs, `room` at most.

        A shard may be taken if its lease is free, ended more than `grace` ago, or has ended
        by our own clock. The same is true if the database names this publisher as owner of a
        shard that it does not hold: then the answer to an earlier attempt was lost.
        """
        epochs = {
            each.shard: each.epoch
            for each in leases
            if each.shard not in self._held
            and (
                each.owner == self.owner
                or each.expires_in < -self._settings.grace
                or each.shard in ended
            )
        }
        return {s: epochs[s] for s in self._in_order(epochs)[: max(0, room)]}

    def _seconds_to_next_beat(
        self, leases: Iterable[Lease], now: float, *, is_short: bool
    ) -> float:
        """Seconds until the next beat: `renew`, or less if a foreign lease can be taken sooner.

        A publisher that is short of its share awaits shards of another one, which releases them
        at a time of its own. Nobody sends their messages until they are taken.
        """
        renew, grace = self._settings.renew, self._settings.grace
        others = [each for each in leases if each.owner != self.owner]
        waits = [each.expires_in + grace for each in others]
        waits += [self._watched.end(each) - now for each in others]
        if is_short and any(each.owner in self._others.names for each in others):
            waits.append(_AWAITS * renew)
        return max(self.soonest, min([renew, *(wait for wait in waits if wait >= 0)]))

    def _in_order(self, shards: Iterable[int]) -> list[int]:
        """The shards in the order of preference of this publisher.

        The order depends on `owner`, so publishers seldom compete for one shard.
        """
        return sorted(shards, key=lambda shard: zlib.crc32(f"{self.owner} {shard}".encode()))
