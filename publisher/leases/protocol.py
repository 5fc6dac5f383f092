"""One beat of the lease protocol: look, renew, release, take, announce (docs/leases.md)."""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from .ownership import Ownership, Snapshot


class LeaseTable(Protocol):
    """The statements of the protocol on leases and publishers.

    `epochs` maps each shard to the epoch that its lease must still have; a lease
    with another epoch is not changed. The methods that take `epochs` return the
    shards that changed. Every method raises when no answer came. The statement may
    then have run, may still run, or may never run.
    """

    async def announce(self, owner: str) -> None:
        """Record that a publisher is alive and able to send, and how long its leases last."""
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

    async def release(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """Free leases of `owner`."""
        ...

    async def take(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """Give leases that may be taken to `owner`, and raise their epoch by one."""
        ...

    async def prune(self) -> None:
        """Delete the rows of publishers that died long ago."""
        ...


async def beat(own: Ownership, table: LeaseTable, clock: Callable[[], float]) -> float:
    """Do one beat; returns the number of seconds until the next.

    Raises what the table raises. The beat ends there, and `own` keeps only what was
    answered; the next beat reads the rest from the database. Deadlines count from
    before their statement is sent (`Ownership.renewed`). The announcement comes
    last: other publishers leave a share of the shards to an announced publisher, so
    one that cannot take shards must not announce itself.
    """
    if not own.is_able:
        await table.withdraw(own.owner)
    seen = await table.look()
    plan = own.plan(seen, clock())
    if plan.renew:
        sent_at = clock()
        own.renewed(plan.renew, await table.renew(own.owner, plan.renew), sent_at)
    if plan.release:
        own.released(await table.release(own.owner, plan.release))
    if plan.take:
        sent_at = clock()
        own.took(plan.take, await table.take(own.owner, plan.take), sent_at)
    if plan.prune:
        await table.prune()
    if own.is_able:
        await table.announce(own.owner)
    return plan.again
