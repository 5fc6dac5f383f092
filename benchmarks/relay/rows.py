"""Outbox rows made in bulk, as a writer would store them, and a sink that drops them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import psycopg
from benchmarks.sample_event import event
from benchmarks.writer.statement_parameters import SHARDS, single

from dsql_outbox.outbox import Database, Message
from dsql_outbox.publisher import Answer, Delivered
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres

BATCH = 500

_FILL = """
INSERT INTO outbox.outbox (shard, position, event_id, previous_position, subject_type, subject_id,
  subject_version, topic, headers, payload, payload_size, created_at)
SELECT (hashint8(key) & 2147483647) %% %(shards)s, base.at + n, id,
  CASE WHEN version = 1 THEN 0 ELSE base.at + n - step END, 'Car', %(name)s || key, version,
  'events.CarMoved',
  replace(replace(%(headers)s, %(sample)s, id::text), %(hex)s, replace(id::text, '-', ''))::json,
  %(payload)s,
  octet_length(%(payload)s),
  clock_timestamp()
FROM (SELECT ((extract(epoch FROM clock_timestamp()) + %(ahead)s) * 1000000)::bigint AS at) AS base,
  LATERAL (
    SELECT n, gen_random_uuid() AS id,
      CASE WHEN %(together)s THEN n / %(per_key)s ELSE n %% %(keys)s END AS key,
      CASE WHEN %(together)s THEN n %% %(per_key)s ELSE n / %(keys)s END + 1 AS version,
      CASE WHEN %(together)s THEN 1 ELSE %(keys)s END AS step
    FROM generate_series(0, %(rows)s::bigint - 1) AS n
  ) AS row
"""


@dataclass(frozen=True)
class Rows:
    """A set of `number` rows, `per_key` per subject.

    Rows of a subject are next to each other if `together`, else as far apart as
    possible. Their positions are `ahead` seconds ahead of the server's clock. With `flags`, each
    has the trace context of a write: ``01`` of one that was sampled, ``00`` of one that was not.
    """

    number: int
    per_key: int = 1
    together: bool = False
    name: str = "CAR-"
    ahead: float = 0
    flags: str = ""

    @property
    def parameters(self) -> dict[str, object]:
        """The parameters of the statement that inserts the rows."""
        sample, headers, payload = _sample()
        plain = sample.replace("-", "")
        if self.flags:
            headers = f'{headers[:-1]},"traceparent":"00-{plain}-00f067aa0ba902b7-{self.flags}"}}'
        return {
            "rows": self.number, "per_key": self.per_key, "together": self.together,
            "keys": self.number // self.per_key, "name": self.name, "shards": SHARDS,
            "sample": sample, "hex": plain, "headers": headers, "payload": payload,
            "ahead": self.ahead,
        }  # fmt: skip


def fill(url: str, rows: Rows) -> None:
    """Insert rows into the outbox, and update the planner's statistics."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL, rows.parameters)
        connection.execute("VACUUM ANALYZE outbox.outbox")


def arrive(connection: psycopg.Connection, rows: Rows) -> None:
    """Insert rows without updating statistics, as when events arrive while publishers work."""
    connection.execute(_FILL, rows.parameters)


def new_database(server: EmbeddedPostgres, name: str) -> str:
    """Create a database with empty tables and return its URL; drop an earlier one of that name."""
    server.drop_database(name)
    url = server.create_database(name)
    apply(Database(url), shards=SHARDS)
    return url


@cache
def _sample() -> tuple[str, str, str]:
    """The id, the headers and the payload of an event as the library writes them."""
    found = single(event("CAR-1", 1))
    return str(found["id"]), f'{found["headers"]}{found["key"]}@1"}}', str(found["data"])


_DELIVERED = Delivered()


class NullSink:
    """A sink that acknowledges every message after `delay` seconds and keeps none."""

    system = "null"
    keeps_prefix = True

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay

    async def publish(self, messages: Sequence[Message], answer: Answer, /) -> None:
        if self._delay:
            await asyncio.sleep(self._delay)
        for index in range(len(messages)):
            answer(index, _DELIVERED)
