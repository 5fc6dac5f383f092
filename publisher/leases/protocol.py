"""The beat of the lease protocol: look, renew, release, take, announce (docs/relay.md).

A beat has two forms. The careful one looks before it announces that it is able to send: each
statement is sent only when those before it were answered. The short one renews, announces and
looks in one statement, so it announces before any answer. It is only for a publisher whose last
beat was answered completely. Otherwise a publisher that gets no answers could keep leases, and a
share, without ever sending a message.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from dsql_outbox.schema.liveness import Snapshot

from .ownership import Ownership


class Renewal(NamedTuple):
    """The answer to `LeaseTable.renew_and_look`: the renewed shards, and the snapshot before."""

    shards: Collection[int]
    seen: Snapshot


class TakenOver(NamedTuple):
    """How many shards a beat took whose lease another publisher, `owner`, had not renewed.

    `seen` is how many seconds ago that one announced itself, or None if it is not announced.
    """

    owner: str
    shards: int
    seen: float | None


class LeaseTable(Protocol):
    """The statements of the protocol on leases and publishers.

    `epochs` maps each shard to the epoch that its lease must still have; a lease
    with another epoch is not changed. The methods that take `epochs` return the
    shards that changed. Every method raises when no answer came. The statement may
    then have run, may still run, or may never run.
    """

    async def announce(self, owner: str, *, waits: bool) -> None:
        """Record that a publisher is alive, and how long its leases last.

        Unless it `waits` for its broker, it is able to send.
        """
        ...

    async def withdraw(self, owner: str) -> None:
        """Delete the record that `announce` made."""
        ...

    async def look(self) -> Snapshot:
        """Read all leases and publishers in one statement."""
        ...

    async def renew(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """Extend leases of `owner`: each ends one lease after the statement runs."""
        ...

    async def renew_and_look(self, owner: str, epochs: Mapping[int, int]) -> Renewal | None:
        """Do `renew`, `announce` and `look` in one statement: all of it or nothing.

        Returns None, without a change, after a conflict or if the database refuses the
        statement.
        """
        ...

    async def release(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """Free leases of `owner`."""
        ...

    async def take(
        self, owner: str, epochs: Mapping[int, int], ended: Mapping[int, float]
    ) -> Collection[int]:
        """Give leases that may be taken to `owner`, and raise their epoch by one.

        A lease in `ended` may be taken too, if it still ends at that moment: it was not
        renewed since it was read.
        """
        ...

    async def prune(self) -> None:
        """Delete the rows of publishers that died long ago."""
        ...

    def drop(self) -> None:
        """Close the connection immediately; the next call opens another."""
        ...


class Beats:
    """The beats of one publisher, one after the other.

    `busy` answers which shards have a message on its way, or a row whose outcome is
    not settled. `progresses` answers whether the relay works. `renewed` is called after the
    answer to a renewal, before the next statement is sent, and `taken_over` once per beat and
    publisher whose shards were taken. Deadlines count from before their
    statement is sent (`Ownership.note_renewal`).
    """

    def __init__(  # noqa: PLR0913 - the answers of its surroundings, by name
        self,
        own: Ownership,
        table: LeaseTable,
        clock: Callable[[], float],
        *,
        busy: Callable[[], Collection[int]],
        progresses: Callable[[], bool],
        renewed: Callable[[], None] = lambda: None,
        taken_over: Callable[[TakenOver], None] = lambda _: None,
    ) -> None:
        self._own = own
        self._table = table
        self._clock = clock
        self._busy = busy
        self._progresses = progresses
        self._on_renewed = renewed
        self._on_taken_over = taken_over
        self._answered = False

    async def beat(self) -> float:
        """Do one beat. Returns the seconds until the next.

        Raises the errors of the table. The beat ends there, and `own` keeps only the answered
        changes; the next beat reads the others from the database.
        """
        answered, self._answered = self._answered, False
        seen = await self._renew_and_look() if answered and self._is_able() else None
        again = await (self._beat_in_steps() if seen is None else self._act(seen))
        self._answered = True
        return again

    def _is_able(self) -> bool:
        """Whether others should leave this publisher a share of the shards."""
        return self._own.is_able and self._progresses()

    async def _renew_and_look(self) -> Snapshot | None:
        own, sent_at = self._own, self._clock()
        renewal = own.renewal(self._busy())
        found = await self._table.renew_and_look(own.owner, renewal)
        if found is None:
            return None
        self._note_renewal(renewal, found.shards, sent_at)
        return found.seen

    def _note_renewal(self, asked: Collection[int], won: Collection[int], sent_at: float) -> None:
        self._own.note_renewal(asked, won, sent_at)
        self._on_renewed()

    async def _beat_in_steps(self) -> float:
        """Do a beat in steps.

        The announcement comes last: others leave a share to a publisher that is
        announced, so one that cannot take shards must not announce itself. That it waits for
        its broker comes first, so that others take its share sooner.
        """
        own, table = self._own, self._table
        if own.is_stopping or not self._progresses():
            await table.withdraw(own.owner)
        elif not own.is_able:
            await table.announce(own.owner, waits=True)
        again = await self._act(await table.look(), renews=True)
        if self._is_able():
            await table.announce(own.owner, waits=False)
        return again

    async def _act(self, seen: Snapshot, *, renews: bool = False) -> float:
        """Decide by the snapshot, and carry the decisions out."""
        own, table, clock = self._own, self._table, self._clock
        plan = own.plan(seen, clock(), busy=self._busy(), progresses=self._progresses())
        if renews and plan.renew:
            sent_at = clock()
            self._note_renewal(plan.renew, await table.renew(own.owner, plan.renew), sent_at)
        if plan.release:
            own.note_release(await table.release(own.owner, plan.release))
        again = plan.again
        if plan.take:
            sent_at = clock()
            won = await table.take(own.owner, plan.take, plan.ended)
            own.note_taken(plan.take, won, sent_at)
            self._tell_taken_over(seen, won)
            if len(won) < len(plan.take):
                # Others took them first. Publishers that beat at the same moment would meet
                # again one `renew` later, and leave the other free shards alone for so long.
                again = min(again, own.soonest)
        if plan.prune:
            await table.prune()
        return again

    def _tell_taken_over(self, seen: Snapshot, won: Collection[int]) -> None:
        """Report the shards whose leases have ended. A free lease was left by its owner."""
        owners = Counter(
            each.owner
            for each in seen.leases
            if each.shard in won and each.owner not in {None, self._own.owner}
        )
        ages = {peer.owner: peer.age for peer in seen.peers}
        for owner, shards in owners.items():
            if owner is not None:
                self._on_taken_over(TakenOver(owner, shards, ages.get(owner)))
