"""The demo's observations, and the invariants that it checks: pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

from dsql_outbox.cli.demo.sample_events import Shape
from dsql_outbox.outbox.event.event import Event
from dsql_outbox.outbox.receipt import Receipt


@dataclass(frozen=True)
class Written:
    """One event, its receipt (None if it was not stored), and how many seconds the write took."""

    shape: Shape
    event: Event
    receipt: Receipt | None
    seconds: float


@dataclass(frozen=True)
class Arrived:
    """One message as the broker stored it.

    `sequence` is the subject's version. `lag` is the seconds from the commit until
    the broker stored the message.
    """

    event_id: UUID
    key: str
    sequence: int
    payload: bytes
    lag: float


@dataclass
class Results:
    """The observations of one run, from which the report is made."""

    written: list[Written] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)

    def ids(self) -> set[UUID]:
        """The ids of the events that were written, stored or not."""
        return {w.event.id for w in self.written}

    def of(self, shape: Shape, event_type: str) -> list[Written]:
        """The writes of one shape and type."""
        return [
            w for w in self.written if w.shape == shape and w.event.header.event_type == event_type
        ]

    def conflicts(self, shape: Shape) -> int:
        """How many conflicts the writes of one shape met."""
        receipts = (w.receipt for w in self.written if w.shape == shape)
        return sum(receipt.conflicts for receipt in receipts if receipt)

    def arrivals_of(self, writes: Iterable[Written]) -> int:
        """How many of these events arrived at least once."""
        arrived = {a.event_id for a in self.arrived}
        return sum(w.event.id in arrived for w in writes)

    def most_retried(self) -> Written:
        """The write with the most attempts."""
        return max(self.written, key=lambda w: w.receipt.attempts if w.receipt else 0)


@dataclass(frozen=True)
class Check:
    """One invariant: what must hold (`text`), the finding, and whether it held."""

    text: str
    found: str
    held: bool


def checks(results: Results, stored: Sequence[UUID], rows_left: int) -> list[Check]:
    """Check all invariants.

    `stored` are the event ids in the database, once per row. `rows_left` is the
    number of rows in its outbox.
    """
    sent = [w.event.id for w in results.written]
    arrived = [a.event_id for a in results.arrived]
    exact = {w.event.id: w.event.to_json() for w in results.written}
    altered = [a for a in results.arrived if exact.get(a.event_id) != a.payload]
    return [
        _all_of("every event is stored, exactly once", stored, sent),
        _all_of("every event reached the broker, exactly once", arrived, sent),
        Check(
            "the shared cars met real conflicts",
            f"{results.conflicts('hot')} conflicts",
            results.conflicts("hot") > 0,
        ),
        Check("per subject, all came in order", *_order(results.arrived)),
        Check("payloads are the bytes sent", f"{len(altered)} altered", not altered),
        Check("the outbox is empty again", f"{rows_left} rows", rows_left == 0),
    ]


def _all_of(text: str, found: Sequence[UUID], wanted: Sequence[UUID]) -> Check:
    """Check that `found` holds each id of `wanted` once and no other, in any order."""
    once = len(set(found) & set(wanted))
    extra = len(found) - once
    held = sorted(found) == sorted(wanted)
    return Check(text, f"{once} of {len(wanted)}, {extra} repeated", held)


def _order(arrived: Iterable[Arrived]) -> tuple[str, bool]:
    by_key: dict[str, list[int]] = {}
    for a in arrived:
        by_key.setdefault(a.key, []).append(a.sequence)
    wrong = sum(later <= before for seen in by_key.values() for before, later in pairwise(seen))
    return f"{len(by_key)} subjects, {wrong} out of order", wrong == 0


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a `share` (0 to 1) of `values` do not exceed, by nearest rank; 0 if empty."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
