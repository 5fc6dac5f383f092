"""All rows of the outbox that a schedule changes, as one statement sees them."""

import json
from math import inf
from typing import Any, Final, NamedTuple

import psycopg

from dsql_outbox.outbox.settings import TARGET_SHARDS
from dsql_outbox.schema.outbox_rows import RowId

_QUERIES: Final = {
    "clock": "SELECT extract(epoch FROM clock_timestamp())::float8",
    "outbox": "SELECT shard, position, event_id, previous_position, subject_type, subject_id,"
    " subject_version, topic,"
    " coalesce(substring(headers::text FROM '\"replay\":\"(\\d+)'), '0')::int"
    " FROM outbox.outbox",
    "failures": "SELECT shard, position, event_id, attempts,"
    " extract(epoch FROM nullif(retry_at, 'infinity'))::float8 FROM outbox.outbox_failures",
    "letters": "SELECT event_id, died_at::text, shard, position, attempts, replays"
    " FROM outbox.dead_letters",
    "replays": "SELECT event_id, number, position FROM outbox.outbox_replays",
    "leases": "SELECT shard, owner, epoch, extract(epoch FROM expires_at)::float8"
    " FROM outbox.outbox_leases",
    "events": "SELECT id, subject_type, subject_id, subject_version, shard, position,"
    " previous_position FROM outbox.business_events",
    "targets": "SELECT name, state FROM outbox.outbox_targets",
    "fills": "SELECT target, state, epoch, event_id, events, messages FROM outbox.outbox_fills",
}
_ALL: Final = " UNION ALL ".join(
    f"SELECT '{name}', coalesce(json_agg(row_to_json(r)), '[]')::text FROM ({query}) AS r"
    for name, query in _QUERIES.items()
)


class Row(NamedTuple):
    """A row of the outbox; `replay` is 0 for the message of the event itself."""

    previous: int
    subject_type: str
    subject_id: str
    version: int
    topic: str
    replay: int


class Failed(NamedTuple):
    """A failure; `retry_at` in seconds since 1970, infinity if it is blocked."""

    attempts: int
    retry_at: float


class Letter(NamedTuple):
    """A dead letter."""

    row: RowId
    attempts: int
    replays: int


class Lease(NamedTuple):
    """The lease of a shard."""

    owner: str | None
    epoch: int
    expires_at: float


class Event(NamedTuple):
    """A stored event."""

    subject: tuple[str, str]
    version: int
    shard: int
    position: int
    previous: int


class Fill(NamedTuple):
    """The fill of a target."""

    state: str
    epoch: int
    event_id: str
    events: int
    messages: int


class Snapshot(NamedTuple):
    """The tables at one moment; `now` is the server's clock, in seconds since 1970."""

    now: float
    outbox: dict[RowId, Row]
    failures: dict[RowId, Failed]
    letters: dict[tuple[str, str], Letter]
    replays: dict[tuple[str, int], int]
    leases: dict[int, Lease]
    events: dict[str, Event]
    targets: dict[str, str]
    fills: dict[str, Fill]


def snapshot(connection: psycopg.Connection[Any]) -> Snapshot:
    """Read all tables, in one statement."""
    read: dict[str, list[list[Any]]] = {
        name: [[*row.values()] for row in json.loads(rows)]
        for name, rows in connection.execute(_ALL).fetchall()
    }
    return Snapshot(
        now=read["clock"][0][0],
        outbox={RowId(*key): Row(*rest) for *key, rest in _split(read["outbox"], 3)},
        failures={
            RowId(*key): Failed(attempts, inf if at is None else at)
            for *key, (attempts, at) in _split(read["failures"], 3)
        },
        letters={
            (event, at): Letter(RowId(shard, position, event), *rest)
            for event, at, shard, position, *rest in read["letters"]
        },
        replays={(event, number): at for event, number, at in read["replays"]},
        leases={
            shard: Lease(owner, epoch, -inf if at is None else at)
            for shard, owner, epoch, at in read["leases"]
        },
        events={id_: Event((kind, name), *rest) for id_, kind, name, *rest in read["events"]},
        targets=dict(read["targets"]),
        fills={target: Fill(*rest) for target, *rest in read["fills"]},
    )


def _split(rows: list[list[Any]], key: int) -> list[list[Any]]:
    """Rows with all columns after the key as one list."""
    return [[*row[:key], row[key:]] for row in rows]


def ours(rows: dict[RowId, Any]) -> dict[RowId, Any]:
    """Those of the default target, which publishers relay."""
    return {row: value for row, value in rows.items() if row.shard < TARGET_SHARDS}
