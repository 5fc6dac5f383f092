"""What must hold of the messages in the stream, whatever was done to the publishers: pure."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

USUAL_WINDOW = 120.0
"""Seconds in which a stream with the usual settings knows a message again."""


class Committed(NamedTuple):
    """An event as the database has it; `digest` is of the bytes that the writer sent."""

    key: str
    sequence: int
    digest: bytes
    at: float


class Delivery(NamedTuple):
    """A message as the stream has it; `at` is the broker's time, in seconds."""

    event_id: UUID
    key: str
    sequence: int
    digest: bytes
    at: float


@dataclass(frozen=True)
class Verdict:
    """What was found; the first four must be empty. Ids are in order of delivery."""

    lost: Collection[UUID]
    disordered: Sequence[UUID]
    foreign: Sequence[UUID]
    altered: Sequence[UUID]
    duplicates: int
    """Deliveries of an event after its first one."""
    duplicates_shown: int
    """Those among them that come too late for a stream with the usual window."""

    @property
    def counts(self) -> dict[str, int]:
        """How often each rule was broken."""
        return {
            "never delivered": len(self.lost),
            "first deliveries out of order": len(self.disordered),
            "delivered, not committed": len(self.foreign),
            "payload or version altered": len(self.altered),
        }

    @property
    def holds(self) -> bool:
        """Whether no rule was broken."""
        return not any(self.counts.values())


def judge(committed: Mapping[UUID, Committed], deliveries: Sequence[Delivery]) -> Verdict:
    """Hold deliveries, in the stream's order, against what was committed."""
    first_at: dict[UUID, float] = {}
    last_sequence: dict[str, int] = {}
    foreign: list[UUID] = []
    altered: list[UUID] = []
    disordered: list[UUID] = []
    duplicates = shown = 0
    kept_at: dict[UUID, float] = {}  # when a stream with the usual window last stored it
    for found in deliveries:
        event = committed.get(found.event_id)
        if event is None:
            foreign.append(found.event_id)
            continue
        if found[1:4] != event[:3]:
            altered.append(found.event_id)
        if found.event_id in first_at:
            duplicates += 1
            if found.at - kept_at[found.event_id] < USUAL_WINDOW:
                continue
            shown += 1
        else:
            first_at[found.event_id] = found.at
            if event.sequence <= last_sequence.get(event.key, 0):
                disordered.append(found.event_id)
            last_sequence[event.key] = max(event.sequence, last_sequence.get(event.key, 0))
        kept_at[found.event_id] = found.at
    lost = committed.keys() - first_at.keys()
    return Verdict(lost, disordered, foreign, altered, duplicates, shown)


class Pause(NamedTuple):
    """From when something of a group waited until it was delivered."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """Seconds."""
        return self.end - self.start


def pauses(
    committed: Mapping[UUID, Committed], deliveries: Sequence[Delivery], group: Mapping[str, str]
) -> dict[str, list[Pause]]:
    """How long each group of keys waited for each of its first deliveries.

    A pause begins with the commit, or with the group's delivery before it if
    that was later. `group` names the group of each key.
    """
    found: dict[str, list[Pause]] = {}
    for event, at in _first_deliveries(committed, deliveries):
        before = found.setdefault(group[event.key], [])
        start = max(event.at, before[-1].end) if before else event.at
        before.append(Pause(min(start, at), at))
    return found


def takeovers(
    harms: Sequence[float], outages: Sequence[Pause], groups: Mapping[str, Sequence[Pause]]
) -> list[float]:
    """For each harm, the longest time in which a group had to wait for its next delivery.

    Harms before whose next deliveries ended an outage are left out: that says
    how long the outage was.
    """
    found: list[float] = []
    for at in harms:
        ends = [p for group in groups.values() if (p := _next(group, at)) is not None]
        if not ends:
            continue
        last = max(ends, key=lambda pause: pause.end - max(at, pause.start))
        if not any(outage.start < last.end and outage.end > at for outage in outages):
            found.append(last.end - max(at, last.start))
    return found


def _next(group: Sequence[Pause], at: float) -> Pause | None:
    place = bisect_right(group, at, key=lambda pause: pause.end)
    return group[place] if place < len(group) else None


def _first_deliveries(
    committed: Mapping[UUID, Committed], deliveries: Sequence[Delivery]
) -> Iterator[tuple[Committed, float]]:
    seen: set[UUID] = set()
    for found in deliveries:
        event = committed.get(found.event_id)
        if event is not None and found.event_id not in seen:
            seen.add(found.event_id)
            yield event, found.at
