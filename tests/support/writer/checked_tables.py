"""What must be true of the tables, whatever happened to the writer."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, Self
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from tests.support.outbox_databases import KEEPER
from tests.support.waiting import wait_until

from dsql_outbox.outbox import DuplicateEvent, OutcomeUnknown, Receipt

Outcome = Receipt | Exception
Row = dict[str, Any]

EVENT_COLUMNS: LiteralString = """SELECT id, write_id, subject_type, subject_id, subject_version,
    shard, position, previous_position, topic, event_data::text AS data, event_size AS size,
    touches::text AS touches FROM outbox.business_events
    WHERE %(id)s::uuid IS NULL OR id = %(id)s"""
HEADERS: LiteralString = """SELECT entity_type, entity_id, entity_version, event_id,
    header_data::text AS data, header_size AS size FROM outbox.event_headers
    ORDER BY entity_type, entity_id, entity_version"""
MESSAGES: LiteralString = """SELECT event_id, shard, position, previous_position, subject_type,
    subject_id, subject_version, topic, payload, payload_size, headers::text AS headers
    FROM outbox.outbox
    WHERE %(id)s::uuid IS NULL OR event_id = %(id)s"""
ENTITIES: LiteralString = """SELECT entity_type, entity_id, version, shard, position, event_id,
    entity_data::text AS data FROM outbox.entities"""
OTHERS: LiteralString = f"""SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND application_name <> '{KEEPER}'"""
WORKING: LiteralString = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"""
HANG_UP: LiteralString = f"""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND application_name <> '{KEEPER}'"""
BLOCKED: LiteralString = """SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""


class Tables:
    """A look at one database, past every proxy."""

    def __init__(self, url: str) -> None:
        self.connection: psycopg.Connection[Row] = psycopg.Connection[Row].connect(
            url, autocommit=True, row_factory=dict_row
        )
        self.connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def execute(self, query: LiteralString) -> list[Row]:
        """Run anything; the rows, if it has any."""
        cursor = self.connection.execute(query)
        return cursor.fetchall() if cursor.description else []

    def events(self, event_id: UUID | None = None) -> list[Row]:
        """Rows of business_events."""
        return self._rows(EVENT_COLUMNS, event_id)

    def headers(self) -> list[Row]:
        """Rows of event_headers, each entity's in version order."""
        return self.execute(HEADERS)

    def messages(self, event_id: UUID | None = None) -> list[Row]:
        """Rows of outbox."""
        return self._rows(MESSAGES, event_id)

    def entities(self) -> list[Row]:
        """Rows of entities."""
        return self.execute(ENTITIES)

    def others(self) -> int:
        """How many other sessions are connected to this database."""
        return self._count(OTHERS)

    def working(self) -> int:
        """How many other sessions of this database are in a statement or a transaction."""
        return self._count(WORKING)

    def hang_up_all(self) -> None:
        """End all other sessions of this database."""
        self.execute(HANG_UP)
        wait_until(lambda: self.others() == 0)

    def blocked(self) -> int:
        """How many sessions wait for a lock."""
        return self._count(BLOCKED)

    @contextmanager
    def locked(self, car: str) -> Iterator[None]:
        """Keep everybody from writing one car, whether it exists or not, for a while."""
        with self.connection.transaction(force_rollback=True):
            self.connection.execute(
                "INSERT INTO outbox.entities (entity_type, entity_id, version, shard, position,"
                " previous_position, entity_data, event_id, created_at, updated_at)"
                " VALUES ('Car', %s, 0, 0, 0, 0, '{}', gen_random_uuid(), now(), now())"
                " ON CONFLICT (entity_type, entity_id) DO UPDATE SET updated_at = now()",
                (car,),
            )
            yield

    def assert_true_to(self, outcomes: Mapping[UUID, Outcome]) -> None:
        """Each receipt is one set of rows, each failure none; and all of it fits together."""
        stored = self._stored()
        for event_id, outcome in outcomes.items():
            stored.assert_outcome(event_id, outcome)
        stored.assert_consistent()

    def assert_consistent(self) -> None:
        """No row without its others, versions gapless, every subject's messages one chain."""
        self._stored().assert_consistent()

    def _stored(self) -> "_Stored":
        # One snapshot: a write whose caller has given up may be stored between two reads.
        with self.connection.transaction():
            return _Stored(self.events(), self.headers(), self.messages(), self.entities())

    def _rows(self, query: LiteralString, event_id: UUID | None) -> list[Row]:
        return self.connection.execute(query, {"id": event_id}).fetchall()

    def _count(self, query: LiteralString) -> int:
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row["count"])


class _Stored:
    """The rows of all four tables."""

    def __init__(
        self,
        events: Sequence[Row],
        headers: Sequence[Row],
        messages: Sequence[Row],
        entities: Sequence[Row],
    ) -> None:
        self._events = {row["id"]: row for row in events}
        self._headers, self._messages, self._entities = headers, messages, entities
        self._by_event = [_grouped(rows) for rows in (headers, messages, entities)]

    def assert_outcome(self, event_id: UUID, outcome: Outcome) -> None:
        """The rows of an event are those that its caller was told of."""
        if isinstance(outcome, Receipt):
            assert outcome.event_id == event_id
            self._assert_receipt(outcome)
        elif isinstance(outcome, DuplicateEvent):
            assert event_id in self._events
        elif not isinstance(outcome, OutcomeUnknown):
            assert event_id not in self._events
            assert not any(event_id in rows for rows in self._by_event)

    def assert_consistent(self) -> None:
        """The rows of all events fit together."""
        assert {row["event_id"] for row in self._headers} == set(self._events)
        assert sorted(row["event_id"] for row in self._messages) == sorted(self._events)
        for row in (*self._events.values(), *self._headers):
            assert row["size"] == len(row["data"].encode())
        for row in self._messages:
            _assert_message(row, self._events[row["event_id"]])
        self._assert_entities()
        _assert_chains(self._messages, self._entities)

    def _assert_receipt(self, receipt: Receipt) -> None:
        event = self._events[receipt.event_id]
        headers, messages, _ = (rows[receipt.event_id] for rows in self._by_event)
        (message,) = messages
        assert receipt.position == event["position"] == message["position"]
        touched = {(t.entity_type, t.entity_id, t.version) for t in receipt.entities}
        assert touched == {_key(row) for row in headers}
        assert [t.version for t in receipt.entities] == [
            touch["version"] for touch in json.loads(event["touches"])
        ]

    def _assert_entities(self) -> None:
        streams: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self._headers:
            streams[row["entity_type"], row["entity_id"]].append(row)
        entities = {(row["entity_type"], row["entity_id"]): row for row in self._entities}
        assert set(streams) == set(entities)
        for key, stream in streams.items():
            versions = [row["entity_version"] for row in stream]
            assert versions == list(range(1, entities[key]["version"] + 1))
            assert entities[key]["event_id"] == stream[-1]["event_id"]


def _grouped(rows: Sequence[Row]) -> dict[UUID, list[Row]]:
    found: dict[UUID, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["event_id"]].append(row)
    return found


def _key(header: Row) -> tuple[str, str, int]:
    return header["entity_type"], header["entity_id"], header["entity_version"]


def _assert_message(message: Row, event: Row) -> None:
    assert message["payload"] == event["data"]
    assert message["payload_size"] == event["size"]
    for name in (
        "shard",
        "position",
        "previous_position",
        "topic",
        "subject_type",
        "subject_id",
        "subject_version",
    ):
        assert message[name] == event[name]
    headers = json.loads(message["headers"])
    listed = [touch.rpartition("@") for touch in headers["entities"].split(",")]
    touches = json.loads(event["touches"])
    assert [int(version) for _, _, version in listed] == [touch["version"] for touch in touches]
    assert headers["id"] == str(event["id"])
    subject = touches[0]["entityType"], touches[0]["entityId"], touches[0]["version"]
    assert subject == (event["subject_type"], event["subject_id"], event["subject_version"])


def _assert_chains(messages: Sequence[Row], entities: Sequence[Row]) -> None:
    chains: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in sorted(messages, key=lambda row: int(row["subject_version"])):
        chains[row["subject_type"], row["subject_id"]].append(row)
    for entity in entities:
        chain = chains[entity["entity_type"], entity["entity_id"]]
        positions = [0, *(row["position"] for row in chain)]
        assert positions == sorted(set(positions))
        assert [row["previous_position"] for row in chain] == positions[:-1]
        assert entity["position"] == positions[-1]
        assert {row["shard"] for row in chain} <= {entity["shard"]}
