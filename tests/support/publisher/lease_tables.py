"""The two tables of the leases, as a model: what each statement does, when it is applied."""

import math
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsql_outbox.publisher.leases.protocol import Renewal
from dsql_outbox.schema.liveness import Lease, Peer, Snapshot

if TYPE_CHECKING:
    from dsql_outbox.publisher import PublisherSettings


@dataclass
class Row:
    """The lease of a shard, with the time at which its owner took it."""

    owner: str | None = None
    epoch: int = 0
    expires_at: float = -math.inf
    taken_at: float = -math.inf


@dataclass
class Statement:
    """A statement on the wire; awaiting it hands it to the simulation."""

    apply: Callable[[], Any]

    def __await__(self) -> Generator["Statement", Any, Any]:
        return (yield self)


class Tables:
    """The two tables, with the rules of the SQL in schema/statements."""

    def __init__(
        self, shards: int, clock: Callable[[], float], *, first: int = 0, is_plain: bool = False
    ) -> None:
        self.leases = {shard: Row() for shard in range(first, first + shards)}
        self.on_take: Callable[[Row, str], None] = _nothing
        """Sees each lease that is taken, as it was before, and its new owner."""
        self.seen_at: dict[str, float] = {}
        self.waiting: set[str] = set()
        """The publishers that are announced as waiting for their broker."""
        self.settings: dict[str, PublisherSettings] = {}
        """Of every publisher that there ever was: what its statements say."""
        self.on_way: dict[str, Mapping[int, int]] = {}
        """The rows on their way of every publisher, as `Member.on_way`."""
        self._clock = clock
        self._is_plain = is_plain

    def owners(self) -> dict[int, tuple[str | None, int]]:
        """Owner and epoch of each shard."""
        return {shard: (row.owner, row.epoch) for shard, row in self.leases.items()}

    async def announce(self, owner: str, *, waits: bool) -> None:
        await Statement(lambda: self._announce(owner, waits=waits))

    async def withdraw(self, owner: str) -> None:
        await Statement(lambda: self.seen_at.pop(owner, None))

    def _announce(self, owner: str, *, waits: bool) -> None:
        self.seen_at[owner] = self._clock()
        if waits:
            self.waiting.add(owner)
        else:
            self.waiting.discard(owner)

    async def look(self) -> Snapshot:
        return await Statement(self._look)  # type: ignore[no-any-return]

    async def renew(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        return await self._change(epochs, lambda row: row.owner == owner, self._extend)

    async def renew_and_look(self, owner: str, epochs: Mapping[int, int]) -> Renewal | None:
        if self._is_plain:
            return None

        def apply() -> Renewal:
            seen = self._look()
            self._announce(owner, waits=False)
            renewed = self._changed(epochs, lambda row: row.owner == owner, self._extend)
            return Renewal(renewed, seen)

        return await Statement(apply)  # type: ignore[no-any-return]

    async def release(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        def apply() -> set[int]:
            sent = self.on_way.get(owner, {})
            cut = [shard for shard, epoch in epochs.items() if sent.get(shard) == epoch]
            assert not cut, f"{owner} released {cut} with a row on its way"
            return self._changed(epochs, lambda row: row.owner == owner, _free)

        return await Statement(apply)  # type: ignore[no-any-return]

    async def take(
        self, owner: str, epochs: Mapping[int, int], ended: Mapping[int, float]
    ) -> Collection[int]:
        def may(row: Row) -> bool:
            over = row.expires_at < self._clock() - self.settings[owner].grace
            unchanged = any(self.leases[s] is row and row.expires_at == ended[s] for s in ended)
            return row.owner in {None, owner} or over or unchanged

        def change(row: Row) -> None:
            self.on_take(row, owner)
            row.owner, row.epoch, row.taken_at = owner, row.epoch + 1, self._clock()
            self._extend(row)

        return await self._change(epochs, may, change)

    async def prune(self) -> None:
        def prune() -> None:
            now, lease = self._clock(), self._lease
            kept = {o: at for o, at in self.seen_at.items() if now - at <= 10 * lease(o)}
            self.seen_at = kept

        await Statement(prune)

    def drop(self) -> None:
        """Nothing: a model has no connection."""

    async def _change(
        self,
        epochs: Mapping[int, int],
        may: Callable[[Row], bool],
        change: Callable[[Row], None],
    ) -> Collection[int]:
        return await Statement(lambda: self._changed(epochs, may, change))  # type: ignore[no-any-return]

    def _changed(
        self,
        epochs: Mapping[int, int],
        may: Callable[[Row], bool],
        change: Callable[[Row], None],
    ) -> set[int]:
        changed = set()
        for shard, epoch in epochs.items():
            row = self.leases[shard]
            if row.epoch == epoch and may(row):
                change(row)
                changed.add(shard)
        return changed

    def _extend(self, row: Row) -> None:
        assert row.owner is not None
        row.expires_at = self._clock() + self._lease(row.owner)

    def _lease(self, owner: str) -> float:
        return self.settings[owner].lease

    def _look(self) -> Snapshot:
        now = self._clock()
        leases = [
            Lease(s, r.owner, r.epoch, r.expires_at - now, r.expires_at if r.owner else None)
            for s, r in self.leases.items()
        ]
        peers = [
            Peer(o, at, now - at, self._lease(o), o in self.waiting)
            for o, at in self.seen_at.items()
        ]
        return Snapshot(leases, peers)


def _free(row: Row) -> None:
    row.owner, row.expires_at = None, -math.inf


def _nothing(_row: Row, _owner: str) -> None:
    """Let a lease be taken."""
