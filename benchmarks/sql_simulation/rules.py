"""What holds for the rows of the outbox, whatever runs beside what."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import pairwise

from dsql_outbox.outbox.settings import TARGET_SHARDS
from dsql_outbox.schema.outbox_rows import RowId

from .expected import Done
from .snapshot import Event, Snapshot, ours

OPERATORS = {"operator", "another operator"}


def broken(
    first: Snapshot, before: Snapshot, after: Snapshot, done: Collection[Done], acted: set[str]
) -> Iterator[str]:
    """The rules that were broken between two snapshots, by statements of these actors.

    `first` are the tables at the beginning.
    """
    yield from _lost_rows(before, after, done)
    yield from _new_rows(first, before, after, done)
    yield from _letters(before, after, acted)
    for row in before.failures.keys() & after.outbox.keys():
        was = before.failures[row]
        now = after.failures.get(row, was)
        if now.attempts < was.attempts or now.retry_at < was.retry_at:
            yield f"the failure of {row} went from {was} to {now}"
    for shard, lease in after.leases.items():
        had = before.leases.get(shard, lease)
        is_same = lease.owner in {had.owner, None}
        if lease.epoch < had.epoch or (lease.epoch == had.epoch and not is_same):
            yield f"the lease of shard {shard} went from {had} to {lease}"
    named = {row.event_id for row in after.outbox} | {event_id for event_id, _ in after.letters}
    if gone := named - after.events.keys():
        yield f"the events {gone} are named and gone"
    for target, fill in after.fills.items():
        passed = sum(event_id <= fill.event_id for event_id in after.events)
        if fill.events > passed:
            yield f"the fill of {target} has read {fill.events} of {passed} events"


def broken_at_the_end(at: Snapshot) -> Iterator[str]:
    """The rules that are broken when nobody acts any more."""
    subjects = defaultdict[tuple[str, str], list[Event]](list)
    for event in at.events.values():
        subjects[event.subject].append(event)
    for events in subjects.values():
        events.sort(key=lambda event: event.version)
        for one, two in pairwise(events):
            if two.version == one.version + 1 and two.previous != one.position:
                yield f"{two} does not name the event before it, {one}"
            if two.position <= one.position or two.version == one.version:
                yield f"{two} is not after {one}"
    there = {row for row in at.outbox if row.shard >= TARGET_SHARDS}
    state = at.targets.get("lake", "dropped")
    wanted = {
        RowId(TARGET_SHARDS + event.shard, event.position, event_id)
        for event_id, event in at.events.items()
        if state != "dropped"
    }
    if there != wanted:
        yield f"the target, which is {state}, lacks {wanted - there} and has {there - wanted}"


def _lost_rows(before: Snapshot, after: Snapshot, done: Collection[Done]) -> Iterator[str]:
    """A row leaves when a publisher has settled it, when it dies, or with its target."""
    gone = before.outbox.keys() - after.outbox.keys()
    buried = {letter.row for key, letter in after.letters.items() if key not in before.letters}
    is_dropped = "dropped" in after.targets.values()
    for row in gone - buried - _settled(done):
        if row.shard < TARGET_SHARDS or not is_dropped:
            yield f"{row} is lost"
    for row in buried - gone:
        yield f"{row} is dead, and was not in the outbox or is still there"


def _new_rows(
    first: Snapshot, before: Snapshot, after: Snapshot, done: Collection[Done]
) -> Iterator[str]:
    """An event comes with its message. One that comes again is behind all of its subject."""
    for event_id in after.events.keys() - before.events.keys():
        event = after.events[event_id]
        row = RowId(event.shard, event.position, event_id)
        if row not in after.outbox and row not in _settled(done):
            yield f"event {event_id} is stored without its message"
    for row in ours(after.outbox).keys() - before.outbox.keys():
        if row.event_id in before.events:
            yield from _again(row, first, before, after)


def _again(row: RowId, first: Snapshot, before: Snapshot, after: Snapshot) -> Iterator[str]:
    subject, number = before.events[row.event_id].subject, after.outbox[row].replay
    replays = {n: at for (event_id, n), at in before.replays.items() if event_id == row.event_id}
    if number != max(replays, default=0) + 1:
        yield f"{row} is replay {number} after {replays}"
    if after.replays.get((row.event_id, number)) != row.position:
        yield f"{row} is not recorded as a replay"
    # An event that is written meanwhile takes a position without a look at replays.
    places = [event.position for event in first.events.values() if event.subject == subject]
    if row.position <= max([*places, *replays.values()]):
        yield f"{row} is not behind the messages of its subject"
    if waiting := [other for other in ours(before.outbox) if other.event_id == row.event_id]:
        yield f"{row} is sent again, though {waiting} waits"


def _letters(before: Snapshot, after: Snapshot, acted: set[str]) -> Iterator[str]:
    """A dead letter leaves for the outbox, or because an operator drops it."""
    again = {row.event_id for row in after.outbox.keys() - before.outbox.keys()}
    gone = {event_id for event_id, _ in before.letters.keys() - after.letters.keys()}
    if gone - again and not acted & OPERATORS:
        yield f"the dead letters of {gone - again} are lost"


def _settled(done: Collection[Done]) -> set[RowId]:
    """The rows that calls of publishers may remove from the outbox."""
    rows: set[RowId] = set()
    for each in done:
        if each.what in {"delete", "apply"}:
            rows |= {*each.arguments[0]}
        elif each.what == "bury":
            rows |= {letter.row for letter in each.arguments[0]}
    return rows
