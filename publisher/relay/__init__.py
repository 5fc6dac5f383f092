"""The relay: three activities side by side, joined by the rows in memory (docs/relay.md).

- `reader` finds rows: `scans` decides where a shard is read, `queues` which rows are
  admitted. `sender` hands them to the sink. `settler` deletes, records and buries.
- `state` is what the three share: the `subjects` that wait or are busy, the `holds` of
  rows that failed, the `topics` that are paused.
- `store` is the port to the tables, `sql_store` has the statements.
- `traced_sink` reports each message to the hooks; `breaker` pauses after failures.

`scans`, `queues`, `subjects`, `holds`, `topics` and `breaker` do no I/O.
"""
