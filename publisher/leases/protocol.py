"""One beat of the lease protocol: look, renew, release, take, and announce oneself."""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from .ownership import Ownership, Snapshot


class LeaseTable(Protocol):
    """The statements on leases and publishers; shards come with the epoch they must have.

    All raise when no answer came: then what was asked may have happened, may
    happen yet, or never will. An answer names the shards that changed.
    """

    async def announce(self, owner: str) -> None:
        """Say that a publisher is alive and able, and how long its leases last."""
        ...

    async def withdraw(self, owner: str) -> None:
        """Take that back."""
        ...

    async def look(self) -> Snapshot:
        """Read all leases and publishers at one time."""
        ...

    async def renew(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """Let leases of `owner` end a whole lease from now."""
        ...

    async def release(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """Free leases of `owner`."""
        ...

    async def take(self, owner: str, epochs: Mapping[int, int]) -> Collection[int]:
        """Make leases those of `owner`, with the next epoch, if they may be taken."""
        ...

    async def prune(self) -> None:
        """Forget publishers that died long ago."""
        ...


async def beat(own: Ownership, table: LeaseTable, clock: Callable[[], float]) -> float:
    """Do one beat; returns in how many seconds the next is due.

    Raises what the table raises; the beat is then cut, nothing is believed
    that was not answered, and the next beat finds out by its look. Each time of
    a deadline is taken before its statement leaves. Only who could do all else
    announces itself: others leave it a share of the shards.
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
