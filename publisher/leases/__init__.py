"""Leases: which publisher relays which shard, and until when (docs/relay.md).

- `ownership` makes every decision: which shards to take, renew and release, and
  until when to send. It does no I/O.
- `protocol` is one beat: read the leases, act on the decisions, announce the publisher.
- `table` holds the statements of the protocol, `keeper` the task that beats.

`dsql_outbox.schema.liveness` is the database's answer, and decides which publishers get a share.

The shards are the rows of ``outbox_leases``. A target has a range of 1,024 numbers, and
``lease_list`` reads those of one target only (`SqlLeaseTable`). So a publisher knows no other
shards. A target that is not running yet has no rows there, so nobody owns or relays its shards.
"""
