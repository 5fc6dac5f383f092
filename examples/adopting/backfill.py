"""Step 2 of the README: bring the events of your own tables, without relaying them.

    python examples/adopting/backfill.py --database postgresql://..

Reads business_events by date and id, and appends what is not here yet, as a writer
does; the same transaction takes the outbox rows away again, so that no publisher
ever sees one. It keeps no state: what is here tells where it stopped. Run it as
often as you like, beside the writers. Exits with 1 if an event was refused, or the
database failed.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import psycopg
from dual import UNSEND, event_uuid

from dsql_outbox import (
    Database,
    DuplicateEvent,
    EventTooLarge,
    InvalidEvent,
    OutboxError,
    Transaction,
    Writer,
)
from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.event.event_parser import ParsedEvent, parse_event
from dsql_outbox.outbox.settings import MAX_TRANSACTION_BYTES, MAX_TRANSACTION_ROWS

# What it leaves out was brought in this run.
PAGE = """SELECT id, at::text, at < clock_timestamp() - %s * interval '1 second' AS settled,
    at > %s::timestamptz AS newer
  FROM (SELECT coalesce(saved_date, created_date, '-infinity') AS at, id
    FROM business_events) AS b
  WHERE (at, id) > (%s::timestamptz, %s) AND NOT EXISTS (
    SELECT FROM unnest(%s::text::text[]) AS done(id) WHERE done.id = b.id)
  ORDER BY at, id LIMIT %s"""
PRESENT = "SELECT id FROM outbox.business_events WHERE id = ANY(%s::text::uuid[])"
DATA = "SELECT id, event_data::text FROM business_events WHERE id = ANY(%s::text::text[])"

RawObject = dict[str, msgspec.Raw]


class Row(NamedTuple):
    """A place in the order of the own table.

    settled: none before it can be committed any more. newer: than the run that reads it.
    """

    own_id: str
    at: str
    settled: bool
    newer: bool


def wire(own_id: str, data: str) -> str | bytes:
    """The event as it is sent: as stored, or with the header names and the id put right."""
    event = _renamed(msgspec.json.decode(data, type=RawObject))
    header = _renamed(msgspec.json.decode(event.get("eventHeader", b"{}"), type=RawObject))
    event_id = str(event_uuid(own_id))
    uuid = msgspec.json.decode(header.get("uuid", b"null"))
    if '"eventHeader"' in data and uuid == event_id:
        return data
    header["uuid"] = msgspec.Raw(msgspec.json.encode(event_id))
    entities = msgspec.json.decode(event.get("entities", b"[]"), type=list[RawObject])
    return msgspec.json.encode(
        event | {"eventHeader": header, "entities": [_entity(entity) for entity in entities]}
    )


def _entity(entity: RawObject) -> dict[str, object]:
    about = entity.pop("entity_header", None) or entity.pop("entityHeader", msgspec.Raw(b"{}"))
    return {"entityHeader": _renamed(msgspec.json.decode(about, type=RawObject)), **entity}


def _renamed(found: RawObject) -> RawObject:
    """event_name as eventName; the values as they are."""
    return {re.sub("_([a-z])", lambda m: m[1].upper(), name): raw for name, raw in found.items()}


def transactions(events: Sequence[ParsedEvent]) -> Iterator[list[ParsedEvent]]:
    """Cut to what DSQL takes: each outbox row counts twice, half of the bytes are left free."""
    batch: list[ParsedEvent] = []
    rows = size = 0
    for event in events:
        more = 3 + 2 * len(event.touches)
        full = rows + more > MAX_TRANSACTION_ROWS
        if batch and (full or size + event.stored_bytes > MAX_TRANSACTION_BYTES // 2):
            yield batch
            batch, rows, size = [], 0, 0
        batch.append(event)
        rows, size = rows + more, size + event.stored_bytes
    if batch:
        yield batch


def bring(transaction: Transaction, batch: Sequence[ParsedEvent]) -> int:
    """Append what is not here, and take its messages away again; how many these were."""
    connection = transaction.connection
    ids = array_literal(event.id for event in batch)
    present = {found for (found,) in connection.execute(PRESENT, [ids])}
    fresh = [event for event in batch if event.id not in present]
    for event in fresh:
        transaction.append(event.data)
    if fresh:
        connection.execute(UNSEND, [array_literal(event.id for event in fresh)])
    return len(fresh)


class Backfill:
    """The way from the own table to the outbox's tables."""

    def __init__(
        self, writer: Writer, own: psycopg.Connection, options: argparse.Namespace
    ) -> None:
        self.brought = 0
        self.refused: dict[str, str] = {}
        self._writer, self._own, self._options = writer, own, options

    def run(self) -> None:
        """Page by page to what was the end of the table when it began.

        An unsettled event is read again with each page, so an event that is
        committed late still comes before the next one of its entity.
        """
        [began] = self._own.execute("SELECT clock_timestamp()::text").fetchone() or [""]
        floor, recent = (self._options.since, ""), list[str]()
        while page := self._page(began, floor, recent):
            self._bring_page([row.own_id for row in page])
            settled = [row for row in page if row.settled]
            recent += [row.own_id for row in page[len(settled) :]]
            if settled:
                floor = (settled[-1].at, settled[-1].own_id)
            if page[0].newer or len(page) < self._options.rows:
                return

    def _page(self, began: str, floor: tuple[str, str], recent: Sequence[str]) -> list[Row]:
        options = self._options
        parameters = [options.settle, began, *floor, array_literal(recent), options.rows]
        return [Row(*row) for row in self._own.execute(PAGE, parameters)]

    def _bring_page(self, own_ids: Sequence[str]) -> None:
        ids = array_literal(event_uuid(own_id) for own_id in own_ids)
        present = {found for (found,) in self._own.execute(PRESENT, [ids])}
        absent = [own_id for own_id in own_ids if event_uuid(own_id) not in present]
        data: dict[str, str] = dict(self._own.execute(DATA, [array_literal(absent)]).fetchall())
        parsed = [self._parsed(own_id, data[own_id]) for own_id in absent if own_id in data]
        for batch in transactions([event for event in parsed if event]):
            self.brought += self._transact(batch)
            print(f"\rbrought {self.brought}", end="", file=sys.stderr, flush=True)

    def _transact(self, batch: Sequence[ParsedEvent]) -> int:
        while True:
            try:
                return self._writer.transact(lambda transaction: bring(transaction, batch))
            except DuplicateEvent:  # another backfill has it now, so the next run of it passes on
                continue

    def _parsed(self, own_id: str, data: str) -> ParsedEvent | None:
        try:
            return parse_event(wire(own_id, data))
        except (InvalidEvent, EventTooLarge, msgspec.DecodeError) as error:
            self.refused[own_id] = str(error)
            return None


def main() -> int:
    """Run once; 1 if an event was refused."""
    parser = argparse.ArgumentParser(description="Bring events without relaying them.")
    parser.add_argument("--database", default=os.environ.get("DSQL_OUTBOX_DATABASE"))
    parser.add_argument("--since", default="-infinity", help="begin at this date")
    parser.add_argument("--settle", type=int, default=300, help="your longest transaction, seconds")
    parser.add_argument("--rows", type=int, default=500, help="events read at a time")
    options = parser.parse_args()
    if not options.database:
        parser.error("--database or DSQL_OUTBOX_DATABASE is needed")
    if options.rows < 1 or options.settle < 0:
        parser.error("--rows must be 1 or more, and --settle 0 or more")
    try:
        database = Database(options.database)
        with Writer(database) as writer, database.connect(role_path=True) as own:
            backfill = Backfill(writer, own, options)
            backfill.run()
    except (psycopg.Error, OutboxError) as error:
        sys.exit(f"\nerror: {error}\nWhat was brought stays; run it again.")
    print(f"\rbrought {backfill.brought}, refused {len(backfill.refused)}", file=sys.stderr)
    for own_id, why in backfill.refused.items():
        print(f"refused {own_id}: {why}", file=sys.stderr)
    return 1 if backfill.refused else 0


if __name__ == "__main__":
    sys.exit(main())
