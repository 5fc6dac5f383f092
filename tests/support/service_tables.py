"""A service with tables of its own, and the code that wrote them until now."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.sql import SQL, Identifier

OWN_EVENT = """CREATE TABLE {} (id varchar(255) PRIMARY KEY, event_name varchar(255) NOT NULL,
    event_type varchar(255), created_date timestamptz, saved_date timestamptz, {} {} NOT NULL)"""
OWN_ENTITY = """CREATE TABLE {} (entity_id varchar(255) PRIMARY KEY,
    entity_type varchar(255) NOT NULL, created_at timestamptz, updated_at timestamptz,
    entity_data {} NOT NULL, event_id varchar(255))"""
TABLES = {"Car": "car_entities", "Loan": "loan_entities"}


def create(connection: psycopg.Connection, json_type: str) -> None:
    """The tables; JSON is text on one database, and jsonb on another."""
    kind = SQL(json_type)  # type: ignore[arg-type]
    for table, column in (("business_events", "event_data"), ("event_headers", "header_data")):
        connection.execute(SQL(OWN_EVENT).format(Identifier(table), Identifier(column), kind))
    for table in TABLES.values():
        connection.execute(SQL(OWN_ENTITY).format(Identifier(table), kind))


def new_event(entities: Sequence[tuple[str, str]], **attributes: Any) -> dict[str, Any]:
    """An event of now, as clients send it."""
    now = datetime.now(UTC).isoformat()
    header = {
        "uuid": str(uuid4()),
        "eventName": "Car Moved",
        "eventType": "CarMoved",
        "createdDate": now,
        "savedDate": now,
    }
    made = [
        {
            "entityHeader": {"entityId": i, "entityType": t, "createdAt": now, "updatedAt": now},
            "id": i,
            **attributes,
        }
        for t, i in entities
    ]
    return {"eventHeader": header, "entities": made}


def write_as_before(
    connection: psycopg.Connection,
    entities: Sequence[tuple[str, str]],
    *,
    own_id: str | None = None,
    dated: bool = True,
    **attributes: Any,
) -> str:
    """The old path: the four tables in one transaction, headers stored in snake_case."""
    with connection.transaction():
        for entity_type, entity_id in sorted(entities, key=lambda e: e[1]):
            connection.execute(
                SQL(
                    "INSERT INTO {} VALUES (%s, %s, now(), now(), '{{}}', NULL)"
                    " ON CONFLICT (entity_id) DO UPDATE SET updated_at = now()"
                ).format(Identifier(TABLES[entity_type])),
                [entity_id, entity_type],
            )
        event = new_event(entities, **attributes)  # dated while its entities are locked
        header = event["eventHeader"]
        own_id = header["uuid"] = own_id or header["uuid"]
        row = [own_id, header["eventName"], header["eventType"], header["createdDate"]]
        row.append(header["savedDate"] if dated else None)
        old = {
            "event_name": header["eventName"],
            "event_type": header["eventType"],
            "created_date": header["createdDate"],
            "uuid": own_id,
        }
        older = [
            {"entity_header": {"entity_id": e["id"], "entity_type": t}}
            | {k: v for k, v in e.items() if k != "entityHeader"}
            for (t, _), e in zip(entities, event["entities"], strict=True)
        ]
        stored = json.dumps({"event_header": old, "entities": older})
        for table, data in (("business_events", stored), ("event_headers", json.dumps(old))):
            connection.execute(
                SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s)").format(Identifier(table)),
                [*row, data],
            )
        for entity_type, entity_id in entities:
            connection.execute(
                SQL("UPDATE {} SET event_id = %s, entity_data = %s WHERE entity_id = %s").format(
                    Identifier(TABLES[entity_type])
                ),
                [own_id, json.dumps(attributes), entity_id],
            )
    return own_id


def own_events(connection: psycopg.Connection) -> list[str]:
    """Ids of all events of the own tables."""
    return [i for (i,) in connection.execute("SELECT id FROM business_events").fetchall()]


def polled(connection: psycopg.Connection) -> set[UUID]:
    """Ids of what the poller sends, as far as they are UUIDs."""
    query = "SELECT id FROM event_headers WHERE id LIKE '________-____-____-____-____________'"
    return {UUID(i) for (i,) in connection.execute(query).fetchall()}
