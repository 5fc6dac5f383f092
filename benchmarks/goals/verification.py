"""Verify a log, and erase one customer of it."""

import asyncio
from contextlib import aclosing
from time import perf_counter
from typing import Any, Final

import psycopg
from benchmarks.relay.rows import new_database

from dsql_outbox.operations import Erasures, Verifier
from dsql_outbox.outbox import Database, Entity, Event
from dsql_outbox.writer import Writer

from .conditions import Conditions

_BATCH: Final = 2_000
_MARK: Final = "Zaphod Beeblebrox"
_TABLES: Final = (
    *("business_events", "event_headers", "entities", "outbox", "outbox_operations"),
    *("outbox_erasures", "dead_letters", "outbox_failures"),
)
_ONE: Final = "(SELECT id FROM outbox.business_events ORDER BY id OFFSET {} LIMIT 1)"
_FAULTS: Final = (
    "UPDATE outbox.business_events SET event_data = replace(event_data::text, '{', '{ \"a\":1,')"
    "::json WHERE id = " + _ONE.format(10),
    "DELETE FROM outbox.event_headers WHERE event_id = " + _ONE.format(500),
    "UPDATE outbox.event_headers SET entity_version = 1000000 WHERE event_id = " + _ONE.format(900),
    "UPDATE outbox.business_events SET subject_version = subject_version + 1, touches ="
    " replace(touches::text, '\"version\":', '\"version\":1')::json WHERE id = "
    + _ONE.format(1300),
    "UPDATE outbox.entities SET version = version + 1 WHERE entity_id = 'C-3'",
    "UPDATE outbox.business_events SET position = 1 WHERE id = " + _ONE.format(1700),
    "UPDATE outbox.outbox SET event_id = gen_random_uuid() WHERE event_id = " + _ONE.format(2100),
)
"""Each is named by one finding at least, which no other of them brings."""

_NAMED: Final = (
    "changed-bytes", "missing-header", "gap", "other-content", "entity-ahead", "other-position",
    "missing-event",
)  # fmt: skip


def verify(conditions: Conditions) -> list[float]:
    """Events per second, and how many kinds of planted faults were named."""
    url = new_database(conditions.server, "verify")
    events = conditions.sizes.load
    _fill(url, events, marked=0)
    began = perf_counter()
    if found := asyncio.run(_findings(url)):
        raise RuntimeError(f"a sound log has {len(found)} findings, such as {found.pop()}")
    rate = events / (perf_counter() - began)
    with psycopg.connect(url, autocommit=True) as connection:
        for fault in _FAULTS:
            connection.execute(fault.encode())
    named = asyncio.run(_findings(url))
    return [rate, sum(fault in named for fault in _NAMED)]


def erase(conditions: Conditions) -> list[float]:
    """What is left of a customer of a tenth of the events, and what else changed."""
    url = new_database(conditions.server, "erase")
    _fill(url, conditions.sizes.load, marked=10)
    with psycopg.connect(url, autocommit=True) as connection:
        before = _others(connection)
        asyncio.run(_erase(url))
        left = sum(_count(connection, table) for table in _TABLES)
        changed = len(before.items() - _others(connection).items())
    return [left, changed, len(asyncio.run(_findings(url)))]


def _fill(url: str, events: int, *, marked: int) -> None:
    """Store events of 5,000 cars; each `marked`-th is one of the customer as well."""
    with Writer(Database(url)) as writer:
        for start in range(0, events, _BATCH):
            some = [_event(n, marked) for n in range(start, min(start + _BATCH, events))]
            writer.write_many(some)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _event(n: int, marked: int) -> Event:
    entities = [Entity("Car", f"C-{n % 5_000}", {"id": n, "owner": "x" * 150, "price": 12.5})]
    if marked and n % marked == 0:
        entities.append(Entity("Customer", "1", {"name": _MARK, "n": n}))
    return Event.new("CarSold", entities)


async def _findings(url: str) -> set[str]:
    async with Verifier(Database(url)) as tool, aclosing(tool.verify()) as run:
        return {finding.fault async for finding in run}


async def _erase(url: str) -> None:
    async with Erasures(Database(url)) as tool:
        run = tool.erase("Customer/1", reason="a measurement")
        async for _ in run:
            pass


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    query = f"SELECT count(*) FROM outbox.{table} AS t WHERE t::text LIKE %s"
    row = connection.execute(query.encode(), (f"%{_MARK}%",)).fetchone()
    assert row is not None
    return int(row[0])


def _others(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """A hash of each row that the customer has no part in."""
    found: dict[str, str] = {}
    for table, key in (
        ("business_events", "id"),
        ("event_headers", "event_id"),
        ("outbox", "event_id"),
    ):
        rows = connection.execute(
            f"SELECT {key}::text, md5(string_agg(t::text, '' ORDER BY t::text)) FROM outbox.{table}"
            f" AS t WHERE {key} NOT IN (SELECT event_id FROM outbox.event_headers"
            " WHERE entity_type = 'Customer') GROUP BY 1".encode()
        )
        found |= {f"{table} {name}": text for name, text in rows.fetchall()}
    rows = connection.execute(
        "SELECT entity_id, md5(t::text) FROM outbox.entities AS t WHERE entity_type = 'Car'"
    )
    return found | {f"entity {name}": text for name, text in rows.fetchall()}
