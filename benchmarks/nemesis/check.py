"""The rules that the messages in the stream must keep, whatever harm was done: pure."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

USUAL_WINDOW = 120.0
"""Seconds in which a JetStream stream with default settings drops a repeated message.

https://docs.nats.io/nats-concepts/jetstream/streams (duplicate_window, 2 minutes)
"""


class Committed(NamedTuple):
    """An event as the database stores it.

    `digest` is that of the bytes sent to the writer. `at` is the time of the
    commit by the database's clock, in seconds since the epoch.
    """

    key: str
    sequence: int
    digest: bytes
    at: float


class Delivery(NamedTuple):
    """A message as the stream stores it; `at` is the broker's time, in seconds since the epoch."""

    event_id: UUID
    key: str
    sequence: int
    digest: bytes
    at: float


@dataclass(frozen=True)
class Verdict:
    """The violations found; the first four fields must be empty. Ids are in order of delivery."""

    lost: Collection[UUID]
    disordered: Sequence[UUID]
    foreign: Sequence[UUID]
    altered: Sequence[UUID]
    duplicates: int
    """How many deliveries were not the first of their event."""
    duplicates_shown: int
    """How many of these a stream with the usual window would have stored."""

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
    """Compare the deliveries, in the stream's order, with the committed events."""
    first_at: dict[UUID, float] = {}
    last_sequence: dict[str, int] = {}
    foreign: list[UUID] = []
    altered: list[UUID] = []
    disordered: list[UUID] = []
    duplicates = shown = 0
    kept_at: dict[UUID, float] = {}  # when a stream with the usual window last stored an event
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
    """A time span in which messages of a group waited; in seconds since the epoch."""

    start: float
    end: float

    @property
    def length(self) -> float:
        """The length in seconds."""
        return self.end - self.start


def pauses(
    committed: Mapping[UUID, Committed], deliveries: Sequence[Delivery], group: Mapping[str, str]
) -> dict[str, list[Pause]]:
    """The pauses of each group of keys, one per first delivery of an event.

    A pause begins with the commit of the event, or with the group's previous
    delivery if that was later. It ends with the delivery. `group` maps each key
    to its group.
    """
    found: dict[str, list[Pause]] = {}
    for event, at in first_deliveries(committed, deliveries):
        before = found.setdefault(group[event.key], [])
        start = max(event.at, before[-1].end) if before else event.at
        before.append(Pause(min(start, at), at))
    return found


def takeovers(
    harms: Sequence[float], outages: Sequence[Pause], groups: Mapping[str, Sequence[Pause]]
) -> list[float]:
    """For each harm, the longest time that a group waited for its next delivery, in seconds.

    A harm is left out if an outage lay within that time, because then the time
    would only show the length of the outage.
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


def first_deliveries(
    committed: Mapping[UUID, Committed], deliveries: Sequence[Delivery]
) -> Iterator[tuple[Committed, float]]:
    """Yield each event that was delivered, and when it first was."""
    seen: set[UUID] = set()
    for found in deliveries:
        event = committed.get(found.event_id)
        if event is not None and found.event_id not in seen:
            seen.add(found.event_id)
            yield event, found.at
