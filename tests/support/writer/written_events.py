"""Events to write, and what ``dsql-outbox write`` says of them."""

import json
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import msgspec

from dsql_outbox.outbox import Receipt

SUMMARY = re.compile(
    r"(?P<stored>[\d,]+) stored \((?P<retried>\d+) after retries, (?P<conflicts>\d+) conflicts?\), "
    r"(?P<duplicates>\d+) duplicates?, (?P<failed>\d+) failed"
    r"(?: \(\d+ with the id of another event\))? in \d+\.\d s"
)


def event(subject: str = "car", n: int = 0, id: UUID | None = None, **dumps: Any) -> bytes:  # noqa: A002
    header = {"uuid": str(id or uuid4()), "eventName": "Car Moved", "eventType": "CarMoved"}
    entity = {"entityHeader": {"entityType": "Car", "entityId": subject}, "n": n}
    return json.dumps({"eventHeader": header, "entities": [entity]}, **dumps).encode()


def receipts(out: bytes) -> list[Receipt]:
    return [msgspec.json.decode(line, type=Receipt) for line in out.splitlines()]


def failures(err: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in err.splitlines() if line.startswith("{")]


def summary(err: str) -> dict[str, int]:
    found = SUMMARY.search(err)
    assert found, err
    return {name: int(value.replace(",", "")) for name, value in found.groupdict().items()}


def ids(events: Sequence[bytes]) -> list[str]:
    return [json.loads(e)["eventHeader"]["uuid"] for e in events]
