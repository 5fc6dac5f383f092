"""Leases: which publisher relays which shard, and until when (docs/relay.md).

- `ownership` makes every decision: which shards to take, renew and release, and
  until when to send. It does no I/O.
- `protocol` is one beat: renew the leases, announce the publisher, read all leases, and act on the
  decisions.
- `table` holds the statements of the protocol, `keeper` the task that beats.

`dsql_outbox.schema.liveness` is the database's answer, and decides which publishers get a share.

The shards are the rows of ``outbox_leases``. A target has a range of 1,024 numbers, and
``lease_list`` reads those of one target only (`SqlLeaseTable`). So a publisher knows no other
shards. A target that is not running yet has no rows there, so nobody owns or relays its shards.

**One shard that changes hands**, from publisher A to publisher B:

1. B starts. `Leases.open` does the first beat: `Beats` looks and then announces B, so that A counts
   it. Each publisher computes the same shares from the same rows (`Ownership._share`).
2. A's next beat is one statement, which renews its leases, announces A and reads what all have. A's
   share has shrunk: `Ownership._drain` marks a shard, and `may_send` allows no new message of it.
3. The relay calls `Leases.note_idle_shard` when the last message of the shard is answered and its
   row deleted. The beat that follows releases the lease (`Plan.release`). A call of the sink that
   lasts longer than the lease would be cut (`lease_scope`).
4. B, which is short of its share, beats ten times as often, and takes the free lease: the row gets
   B's name and the epoch plus 1. `Leases` tells the relay, which sweeps the shard from its begin.

If A dies, nothing is released. B takes the lease when it has ended more than `grace` ago by the
database's clock, or has not changed for so long by B's own clock (`WatchedLeases`). If A was only
suspended, its deadline is over when it wakes up, and its epoch is not the shard's any more.
"""
