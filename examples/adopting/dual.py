"""Step 1 of the README: one retried transaction for your own tables and the outbox."""

import json
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from dsql_outbox import Receipt, Transaction

TABLES = {"Car": "car_entities", "Loan": "loan_entities"}
UNSEND = """DELETE FROM outbox.outbox AS o USING outbox.business_events AS b
    WHERE b.id = ANY(%s::text::uuid[]) AND o.shard = b.shard AND o.position = b.position
      AND o.event_id = b.id"""


class NotAdopted(Exception):
    """An entity's past is not in the outbox's tables yet: answer 503, the backfill brings it."""


def event_uuid(own_id: str) -> UUID:
    """An own event id as a UUID: itself, or for another text always the same one."""
    try:
        return UUID(own_id)
    except ValueError:
        return uuid5(NAMESPACE_OID, own_id)


def store(transaction: Transaction, event: dict[str, Any]) -> Receipt | None:
    """Store an event in the own tables, and here too if its entities' past is here already."""
    connection = transaction.connection
    entities = sorted(event["entities"], key=lambda e: str(e["entityHeader"]["entityId"]))
    last = [lock(connection, entity["entityHeader"]) for entity in entities]
    is_adopted = all(has_event(connection, own_id) for own_id in last if own_id)
    # Read after the lock: then the events of an entity change over once, in their order.
    [relayed] = connection.execute("SELECT relayed FROM adopting").fetchone() or [False]
    if relayed and not is_adopted:
        raise NotAdopted(event["eventHeader"]["uuid"])
    write_own(connection, event, polled=not relayed)
    if not is_adopted:
        return None  # polled, and brought by the backfill
    receipt = transaction.append(event)
    if not relayed:  # the poller sends it
        connection.execute(UNSEND, [f"{{{receipt.event_id}}}"])
    return receipt


def lock(connection: Connection[Any], header: dict[str, str]) -> str | None:
    """Lock an entity's row, made if need be; the id of its last event, None for a new one."""
    table = Identifier(TABLES[header["entityType"]])
    connection.execute(
        SQL("""INSERT INTO {} (entity_id, entity_type, created_at, updated_at, entity_data)
            VALUES (%s, %s, now(), now(), '{{}}') ON CONFLICT DO NOTHING""").format(table),
        [header["entityId"], header["entityType"]],
    )
    locked = SQL("SELECT event_id FROM {} WHERE entity_id = %s FOR UPDATE").format(table)
    row = connection.execute(locked, [header["entityId"]]).fetchone()
    own_id: str | None = row[0] if row else None
    return own_id


def has_event(connection: Connection[Any], own_id: str) -> bool:
    """Whether an event of the own tables is in the outbox's tables."""
    query = "SELECT 1 FROM outbox.business_events WHERE id = %s"
    return connection.execute(query, [event_uuid(own_id)]).fetchone() is not None


def write_own(connection: Connection[Any], event: dict[str, Any], *, polled: bool) -> None:
    """The rows that your service writes today; the poller sees the row in event_headers."""
    header = event["eventHeader"]
    keys = ("uuid", "eventName", "eventType", "createdDate", "savedDate")
    row = [header[key] for key in keys]
    insert = "INSERT INTO {} VALUES (%s, %s, %s, %s, %s, %s)"
    stored = SQL(insert).format(Identifier("business_events"))
    connection.execute(stored, [*row, json.dumps(event)])
    if polled:
        sent = SQL(insert).format(Identifier("event_headers"))
        connection.execute(sent, [*row, json.dumps(header)])
    for entity in event["entities"]:
        update = """UPDATE {} SET updated_at = now(), entity_data = %s, event_id = %s
            WHERE entity_id = %s"""
        about = entity["entityHeader"]
        table = Identifier(TABLES[about["entityType"]])
        data = json.dumps({k: v for k, v in entity.items() if k != "entityHeader"})
        connection.execute(SQL(update).format(table), [data, header["uuid"], about["entityId"]])
