"""What a statement of a publisher is to answer and to change, by the models of `make simulate`.

So what the simulation proves about the relay on its models holds for the real statements.
"""

from collections.abc import Container, Mapping, Sequence
from math import inf
from typing import Any, Final, NamedTuple

from benchmarks.simulation.history import History
from benchmarks.simulation.outbox_model import NewRow, Origin, Tables
from tests.support.publisher.lease_tables import Row as LeaseRow
from tests.support.publisher.lease_tables import Tables as LeaseTables

from dsql_outbox.outbox.settings import TARGET_SHARDS
from dsql_outbox.publisher import PublisherSettings
from dsql_outbox.publisher.leases.protocol import Renewal
from dsql_outbox.publisher.relay.store import (
    Failure,
    Reading,
    StoredFailure,
    StoredWait,
    SubjectName,
)
from dsql_outbox.schema.outbox_rows import OutboxRow, RawRow, RowId

from .snapshot import Snapshot, ours

SETTINGS: Final = PublisherSettings(lease=3_600.0)
WAITS: Final = (0.0, 1_000.0, None)
"""Seconds that a failed message waits: over at once, not over in a schedule, or blocked."""

_ORIGIN: Final = Origin("", 0.0)
_CHANGES: Final = ("delete", "apply", "record", "forget", "bury", "sweep")
_LEASES: Final = ("take", "renew", "release", "renew_and_look")


class Done(NamedTuple):
    """A call of a publisher that has its answer.

    `seen` are the tables that it may have read.
    """

    publisher: str
    what: str
    arguments: tuple[Any, ...]
    answer: Any
    seen: Sequence[Snapshot]


def faults(done: Sequence[Done], before: Snapshot, after: Snapshot) -> list[str]:
    """What the calls that ended between two snapshots should have answered or changed."""
    tables, leases = _tables(before), _leases(before)
    found: list[str] = []
    for each in done:
        real, models = _plain(each.answer), list[Any]()
        if each.what in _LEASES:
            models = [_asked(leases, each)]
        elif each.what in _CHANGES:
            models = [_answer(tables, each)]
        else:
            models = [_answer(_tables(at), each) for at in each.seen]
        if real not in (expected := [_plain(each) for each in models]):
            found.append(f"{each.what} of {each.publisher} answered {real}, not {expected}")
    # A failure without its message is read by nobody, and swept away.
    kept = after.outbox if [each.what for each in done] != ["sweep"] else after.failures
    for name, real, model in (
        ("rows", {*ours(after.outbox)}, {*tables.rows}),
        (
            "failures",
            _failed(kept, after.failures, after.now),
            _failed(kept, tables.failures, 0.0),
        ),
        ("leases", _lease_rows(after, before), _lease_rows(leases, before)),
    ):
        if real != model:
            called = [(each.publisher, each.what, each.arguments) for each in done]
            here, there = (_only(one, other) for one, other in ((real, model), (model, real)))
            found.append(f"after {called} the {name} have {here}, not {there}")
    return found


def _tables(at: Snapshot) -> Tables:
    """The model of the tables, with the rows of a snapshot. Its time stands still at 0."""
    tables = Tables(lambda: 0.0, History())
    for id_, row in ours(at.outbox).items():
        subject = SubjectName(row.subject_type, row.subject_id)
        tables.insert(
            NewRow(
                id_,
                row.previous,
                subject,
                row.version,
                row.topic,
                row.replay,
                is_late=False,
                is_sick=False,
                is_broken=False,
            )
        )
    for id_, failed in ours(at.failures).items():
        seconds = WAITS[_WAITS.index(_wait(failed.retry_at - at.now))]
        tables.record([Failure(id_, "", failed.attempts, seconds)], _ORIGIN)
    return tables


def _answer(tables: Tables, done: Done) -> Any:
    match done.what:
        case "sweep":
            tables.forget([row for row in tables.failures if row not in tables.rows], _ORIGIN)
            return None
        case "read" | "stored_failures" | "stored_waits":
            return getattr(tables, done.what)(*done.arguments)
        case _:
            return getattr(tables, done.what)(*done.arguments, _ORIGIN)


def _leases(at: Snapshot) -> LeaseTables:
    """The model of the leases, with those of a snapshot. Its time stands still."""
    tables = LeaseTables(0, lambda: at.now)
    for shard, lease in at.leases.items():
        tables.leases[shard] = LeaseRow(lease.owner, lease.epoch, lease.expires_at)
        tables.settings[lease.owner or ""] = SETTINGS
    return tables


def _asked(leases: LeaseTables, done: Done) -> Any:
    leases.settings[done.publisher] = SETTINGS
    statement = getattr(leases, done.what)(done.publisher, *done.arguments)
    return statement.send(None).apply()


def _failed(kept: Container[RowId], failures: Mapping[RowId, Any], now: float) -> dict[RowId, Any]:
    """The attempts of each failure of some messages, and the kind of its wait."""
    return {
        row: (each.attempts, _wait(each.retry_at - now))
        for row, each in failures.items()
        if row in kept and row.shard < TARGET_SHARDS
    }


def _lease_rows(leases: Any, before: Snapshot) -> dict[int, tuple[str | None, int, bool]]:
    """Owner and epoch of each lease, and whether its end has moved."""
    return {
        shard: (lease.owner, lease.epoch, lease.expires_at != before.leases[shard].expires_at)
        for shard, lease in leases.leases.items()
    }


_WAITS: Final = ("due", "waits", "blocked")


def _wait(seconds: float) -> str:
    """Which of `WAITS` it is."""
    return "blocked" if seconds == inf else _WAITS[seconds > WAITS[-2] / 2]


def _plain(answer: Any) -> Any:  # noqa: PLR0911 - a line for each kind of answer
    """What of an answer does not depend on the clock."""
    match answer:
        case Reading():
            return [([_read(row) for row in each.rows], *each[1:]) for each in answer.ranges]
        case Renewal():
            seen = [(*each[:3], each.expires_in > 0) for each in answer.seen.leases]
            return {*answer.shards}, sorted(seen)
        case Mapping():
            return {key: _plain(value) for key, value in answer.items()}
        case StoredWait():
            return answer.attempts, _wait(answer.seconds)
        case [StoredFailure(), *_]:
            return sorted((*each[:3], _wait(each.seconds)) for each in answer)
        case set() | list():
            return sorted(answer)
        case _:
            return answer


def _read(found: RawRow) -> tuple[Any, ...]:
    row = OutboxRow.read(found)
    subject = row.subject_type, row.subject_id, row.subject_version
    return row.id, row.previous_position, *subject, row.topic, row.is_replay, row.predecessor


def _only(one: Any, other: Any) -> Any:
    """What one has, and the other has not."""
    if isinstance(one, set):
        return sorted(one - other)
    return {key: value for key, value in one.items() if other.get(key) != value}
