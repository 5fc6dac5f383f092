"""The floor of the writer: four plain inserts of the same rows. No I/O but reading the SQL.

Only the standard library: the peers' environment has none of ours.
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from time import time_ns
from typing import Any
from uuid import uuid4

from benchmarks.sample_event import SUBJECTS

COLUMNS = {
    "id": "uuid",
    "name": "text",
    "type": "text",
    "created_date": "timestamptz",
    "data": "text",
    "fingerprint": "bytea",
    "write_id": "uuid",
    "topic": "text",
    "headers": "json",
    "entity_type": "text",
    "entity_id": "text",
    "version": "bigint",
    "shard": "int",
    "position": "bigint",
    "touches": "json",
    "attributes": "json",
    "header": "json",
}
"""The columns of a row, with their types."""

SHARDS = 16


@cache
def batch_statement() -> str:
    """The statement for any number of events: each parameter is an array as text."""
    arrays = ", ".join(f"%({name})s::text::{kind}[]" for name, kind in COLUMNS.items())
    return _statement(f"SELECT * FROM unnest({arrays}) AS t({', '.join(COLUMNS)})")


@cache
def single_statement() -> str:
    """The statement for one event: each parameter is a value."""
    values = ", ".join(f"%({name})s::{kind} AS {name}" for name, kind in COLUMNS.items())
    return _statement(f"SELECT {values}")


def numbered(statement: str) -> str:
    """The same statement with $1, $2 .. of their own types, as asyncpg wants it."""
    places = {name: f"${n}" for n, name in enumerate(COLUMNS, 1)}
    return re.sub(r"%\((\w+)\)s(?:::text(?=::))?", lambda found: places[found[1]], statement)


def rows(events: Sequence[bytes]) -> list[tuple[Any, ...]]:
    """The rows of sample events, each in the order of `COLUMNS`."""
    now = time_ns() // 1000
    return [_row(event, now + n) for n, event in enumerate(events)]


def columns(events: Sequence[bytes]) -> list[list[Any]]:
    """The same as one list per column."""
    return [list(column) for column in zip(*rows(events), strict=True)]


def _encode(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _statement(source: str) -> str:
    text = Path(__file__).with_name("four_inserts.sql").read_text(encoding="utf-8")
    return text.replace("{source}", source).replace("{schema}", "outbox")


def _row(event: bytes, position: int) -> tuple[Any, ...]:
    """One row. The n of a sample event says how often its entity occurred before it."""
    found = json.loads(event)
    header, (entity,) = found["eventHeader"], found["entities"]
    key, version = entity["entityHeader"], entity["n"] // SUBJECTS + 1
    created = datetime.fromisoformat(header["createdDate"])
    attributes = {name: value for name, value in entity.items() if name != "entityHeader"}
    message = {
        "specversion": "1.0", "id": header["uuid"], "source": "/dsql-outbox",
        "type": header["eventType"], "datacontenttype": "application/json",
        "time": created.isoformat(timespec="microseconds"),
        "entities": f"{key['entityType']}/{key['entityId']}@{version}",
    }  # fmt: skip
    return (
        header["uuid"], header["eventName"], header["eventType"],
        created, event.decode(), sha256(event).digest(),
        str(uuid4()), "events.CarMoved", _encode(message), key["entityType"], key["entityId"],
        version, entity["n"] % SHARDS, position, _encode([key | {"version": version}]),
        _encode(attributes), _encode({"eventHeader": header, "entityHeader": key}),
    )  # fmt: skip
