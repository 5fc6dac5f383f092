"""The relay: choose rows, send them, record what the broker answered.

- `round` does one round: read, send, delete or record.
- `cursors` decides where each shard is read, `selection` which rows may be sent now;
  neither does I/O. `outbox_rows` turns rows into messages.
- `waves` sends the messages, one per key at a time; `traced_sink` reports each to
  the hooks; `breaker` pauses after failures of the broker.
- `held_subjects` holds the messages that failed, `burial` moves one to the dead letters.
- `store` has the statements.
"""
