"""Leases: which publisher relays which shard, and until when (docs/relay.md).

- `ownership` makes every decision: which shards to take, renew and release, and
  until when to send. It does no I/O.
- `protocol` is one beat: read the leases, act on the decisions, announce the publisher.
- `table` holds the statements of the protocol, `keeper` the task that beats.
- `liveness` is the database's answer, and decides which publishers get a share.
"""
