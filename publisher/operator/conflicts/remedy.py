"""The remedy for an entity that conflicts often, judged by its counts. No I/O."""

from collections.abc import Mapping
from typing import Final, Literal

from dsql_outbox.outbox import EntityConflicts

Remedy = Literal["coalesce", "split", "separate", "reorder", "none"]

REMEDIES: Final[Mapping[Remedy, str]] = {
    "coalesce": "Its own events conflict with each other. Write them with "
    "AsyncWriter and WriterSettings(coalesce=4), which put them into one transaction.",
    "split": "Its own events conflict although their writers coalesce: several processes write "
    "them. Send them to one process, or split the entity into several.",
    "separate": "Its events touch other entities too, and hold them up. Write its change as an "
    "event of its own, or touch fewer entities per event.",
    "reorder": "It conflicts in transact. Do reads and slow work before transact, and append "
    "its event last, so that the transaction is short.",
    "none": "It conflicts together with an entity that conflicts more often. Treat that one first.",
}
"""The meaning of each remedy."""


def remedy_of(counts: EntityConflicts) -> Remedy:
    """Return the remedy for the kind of transaction in which the entity conflicts most."""
    half = counts.conflicts / 2
    if counts.behind > half:
        return "none"
    if counts.transact > half:
        return "reorder"
    if counts.joint > half:
        return "separate"
    return "split" if counts.coalesced > half else "coalesce"
