"""Rows with the worst value of each column, written by each role that may write it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

import psycopg
from psycopg import sql

from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.schema.roles import Roles, grant, grants

SHARDS: Final = 32
"""More than the worst values of a lease, each of which changes a row of its own."""

_TEXTS: Final = ("", "\x1b[2J\u202e\x7f\r\n", "\x01")

WORST: Final[Mapping[str, Sequence[Any]]] = {
    "integer": (-(2**31), -1, 0, 2**31 - 1),
    "bigint": (-(2**63), -1, 0, 2**63 - 1),
    "double precision": ("-infinity", "-1", "0", "1e308", "nan", "infinity"),
    "timestamp with time zone": (
        *("-infinity", "4713-01-01 00:00+00 BC", "0001-01-01 00:00+00"),
        *("9999-12-31 23:59:59.999999+00", "294276-12-31 23:59:59+00", "infinity"),
    ),
    "uuid": (UUID(int=0), UUID(int=2**128 - 1)),
    "json": (
        *("null", "7", '"a"', "[]", "{}", '{"a": null}', '{"a": {"b": 1}}', '["a", "a"]'),
        *('{"a": "\\u0000"}', '{"a": "\\ud800"}', '{"a": 1e200000}', "[" * 1000 + "]" * 1000),
    ),
    "text": (*_TEXTS, "\U0001f697" * 100_000),
    "bytea": (b"", b"\0" * 100_000),
}


class Column(NamedTuple):
    """A column: its type, the limit of its characters, and whether it may be NULL."""

    table: str
    name: str
    kind: str
    limit: int | None
    is_nullable: bool

    def worst(self) -> Iterator[Any]:
        """The worst values. PostgreSQL stores no NUL in a text."""
        if self.is_nullable:
            yield None
        if self.limit is None:
            yield from WORST[self.kind]
        else:
            yield from _TEXTS
            yield "\U0001f697" * self.limit


class Row(NamedTuple):
    """A row that was written: by which role, and the column that is at its worst."""

    role: str
    column: Column
    value: Any
    values: dict[str, Any]


def write_worst_rows(url: str, roles: Roles) -> list[Row]:
    """Make the tables and write the rows. Returns those that the database took."""
    apply(Database(url), shards=SHARDS)
    grant(Database(url), roles)
    with psycopg.connect(url) as connection:
        columns = _columns(connection)
        writer = _Writer(connection)
        for duty, role in roles.assignments():
            for each in grants(duty):
                write = writer.insert if "INSERT" in each.rights else writer.update
                # The rows of other tables are those that a writer inserts.
                is_changed = "UPDATE" in each.rights and each.name == "outbox_leases"
                if "INSERT" not in each.rights and not is_changed:
                    continue
                # An erasure writes its event as a writer does, with keys that are taken here.
                if duty == "keeper" and each.name == "business_events":
                    continue
                # A target that the tool did not make may end all writes: no command shows it then.
                if duty == "operator" and each.name in {"outbox_targets", "outbox_leases"}:
                    continue
                for column in columns.get(each.name or "", ()):
                    for value in column.worst():
                        write(duty, role, column, value)
        return writer.rows


def _columns(connection: psycopg.Connection[Any]) -> dict[str, list[Column]]:
    found: dict[str, list[Column]] = {}
    query = """SELECT table_name, column_name, data_type, character_maximum_length,
        is_nullable = 'YES' FROM information_schema.columns WHERE table_schema = 'outbox'"""
    for row in connection.execute(query):
        column = Column(*row)
        found.setdefault(column.table, []).append(column)
    return found


class _Writer:
    """Writes one row per worst value, and the rows that belong to it."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.rows: list[Row] = []
        self._connection = connection
        self._lease = 0

    def insert(self, duty: str, role: str, column: Column, value: Any) -> None:
        values = _row(column.table, len(self.rows) + 1) | {column.name: value}
        if self._run(role, _insert(column.table, values)):
            self.rows.append(Row(duty, column, value, values))
            known = values | {_ALIASES[name]: values[name] for name in _ALIASES if name in values}
            for table in _BESIDE.get(column.table, ()):
                beside = _row(table, len(self.rows) + 1)
                beside |= {name: known[name] for name in beside if name in known}
                self._run(None, _insert(table, beside))

    def update(self, duty: str, role: str, column: Column, value: Any) -> None:
        """Change a row of its own: only leases are updated and never inserted."""
        query = sql.SQL("UPDATE outbox.{} SET {} = {} WHERE shard = {}").format(
            sql.Identifier(column.table), sql.Identifier(column.name), value, self._lease
        )
        self._lease += 1
        assert self._lease <= SHARDS
        if self._run(role, query):
            self.rows.append(Row(duty, column, value, {column.name: value}))

    def _run(self, role: str | None, query: sql.Composed) -> bool:
        try:
            with self._connection.transaction():
                name = sql.SQL("NONE") if role is None else sql.Identifier(role)
                self._connection.execute(sql.SQL("SET LOCAL ROLE {}").format(name))
                self._connection.execute(query)
        except (psycopg.DataError, psycopg.IntegrityError):
            return False  # the database refuses it, so nobody has to read it
        return True


def _insert(table: str, values: Mapping[str, Any]) -> sql.Composed:
    return sql.SQL("INSERT INTO outbox.{} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, values)),
        sql.SQL(", ").join(map(sql.Literal, values.values())),
    )


_BESIDE: Final = {
    "outbox_failures": ("outbox", "business_events"),
    "dead_letters": ("business_events",),
    "business_events": ("event_headers", "entities"),
    "event_headers": ("business_events", "entities"),
    "entities": ("business_events", "event_headers"),
    "outbox_replays": ("business_events",),
}
"""The rows without which a row of a table is not looked at."""


_ALIASES: Final = {
    "id": "event_id",
    "event_id": "id",
    "entity_type": "subject_type",
    "entity_id": "subject_id",
    "subject_type": "entity_type",
    "subject_id": "entity_id",
    "subject_version": "entity_version",
    "entity_version": "version",
    "version": "subject_version",
}
"""Names of the same value in other tables."""


def _row(table: str, n: int) -> dict[str, Any]:
    event_id = uuid4()
    now = "2026-11-27 12:00+00"
    subject = {"subject_type": "Car", "subject_id": f"c-{n}", "subject_version": 1}
    entity = {"entity_type": "Car", "entity_id": f"c-{n}", "entity_version": 1}
    message = {
        "event_id": event_id,
        "shard": n % SHARDS,
        "position": n,
        "previous_position": 0,
        **subject,
        "topic": "events.CarMoved",
        "headers": '{"id": "1", "source": "/a", "type": "CarMoved"}',
        "payload": "{}",
        "payload_size": 2,
        "created_at": now,
    }
    names = {"event_name": "Car Moved", "event_type": "CarMoved", "created_date": now}
    rows: dict[str, dict[str, Any]] = {
        "outbox": message,
        "dead_letters": {name: message[name] for name in message if name != "payload"}
        | {"died_at": now, "error": "no", "attempts": 1, "replays": 0},
        "business_events": {
            "id": event_id,
            **names,
            "saved_date": now,
            "event_data": "{}",
            "event_size": 2,
            "fingerprint": b"f",
            "write_id": uuid4(),
            **subject,
            "shard": 1,
            "position": n,
            "previous_position": 0,
            "topic": "events.CarMoved",
            "touches": '[{"entityType": "Car", "entityId": "c", "version": 1}]',
            "headers": None,
            "erased_at": None,
        },
        "event_headers": entity
        | names
        | {"event_id": event_id, "saved_date": now, "header_data": "{}", "header_size": 2},
        "entities": {
            "entity_type": "Car",
            "entity_id": f"c-{n}",
            "version": 1,
            "shard": 1,
            "position": n,
            "previous_position": 0,
            "entity_data": "{}",
            "event_id": event_id,
            "created_at": now,
            "updated_at": now,
        },
        "outbox_failures": {
            "shard": n % SHARDS,
            "position": n,
            "event_id": event_id,
            "attempts": 1,
            "last_error": "no",
            "retry_at": now,
        },
        "outbox_publishers": {
            "owner": f"p-{n}",
            "seen_at": now,
            "lease_seconds": 10.0,
            "paused": "[]",
            "target": "default",
        },
        "outbox_topics": {
            "target": "default",
            "topic": f"t-{n}",
            "reason": "",
            "paused_by": "me",
            "paused_at": now,
        },
        "outbox_replays": {
            "event_id": event_id,
            "number": 1,
            "position": n,
            "reason": "",
            "replayed_by": "me",
            "replayed_at": now,
        },
        "outbox_operations": {
            "operated_at": now,
            "id": uuid4(),
            "verb": "topics pause",
            "object": f"t-{n}",
            "reason": "",
            "database_role": "me",
            "user_name": "ann",
        },
        "outbox_erasures": {
            "erased_at": now,
            "entity_type": "Car",
            "entity_id": f"c-{n}",
            "event_id": event_id,
            "version": 1,
            "reason": "",
            "database_role": "me",
            "user_name": "ann",
            "finished_at": None,
        },
        "outbox_fills": {
            "target": f"lake-{n}",
            "state": "done",
            "source": "/shop",
            "epoch": n,
            "expires_at": now,
            "event_id": event_id,
            "events": n,
            "messages": n,
            "forgotten": 0,
        },
        "outbox_jobs": {
            "name": f"job-{n}",
            "owner": None,
            "epoch": 1,
            "expires_at": now,
            "verb": "forget",
            "erased": 0,
            "forgotten": 0,
            "forgotten_at": None,
            "forgotten_before": None,
        },
        "inbox": {
            "consumer": "mailer",
            "source": "",
            "dedupe_id": f"d-{n}",
            "run_id": uuid4(),
            "seen_at": now,
        },
        "inbox_subjects": {
            "consumer": "mailer",
            "source": "",
            "subject_type": "Car",
            "subject_id": f"c-{n}",
            "position": n,
            "previous_position": 0,
            "seen_at": now,
        },
    }
    return rows[table]
