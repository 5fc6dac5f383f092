"""What the relay knows of the outbox, and what it decides from that.

- `scans` decides where a shard is read, `queues` which rows are admitted and sent.
- `subjects` has a shard and a subject, with the rows that wait and those that failed.
- `holds` tells when failed rows are tried again, `topics` which topics take no messages,
  `breaker` when to try a broker that failed.

No module of this chapter reads, writes or waits; callers tell the time.
"""
