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

1. B starts. `Leases.open` does the first beat: `Beats` looks and then announces B. A counts B when
   it has seen two announcements of it (`OtherPublishers`). Each publisher computes the same shares
   from the same rows (`Ownership._share`).
2. A's next beat is one statement, which renews its leases, announces A and reads what all have. A's
   share has shrunk: `Ownership._drain` marks a shard. `may_send` allows no new message of it, and
   `Reader._follow` drops its rows that wait.
3. If nothing of the shard is on its way or waits for a table, `Beats._act` releases the lease in
   the same beat (`Plan.release`). Otherwise each beat renews it, until the relay calls
   `Leases.note_idle_shard` and the beat that follows releases it. `lease_scope` cuts a call of the
   sink only if a renewal fails.
4. B, which is short of its share, beats ten times as often. `Ownership._shards_to_take` finds the
   free lease, and `Beats._act` takes it: the row gets B's name and the epoch plus 1. `Leases`
   reports it, and `Publisher._tell_shards` wakes the reader. `Reader._follow` finds the new epoch,
   reads the failures of the shard, and begins a sweep at its head.

If A dies, nothing is released. B takes the lease when it has ended more than `grace` ago by the
database's clock, or has not changed for its length plus `grace` by B's own clock (`WatchedLeases`).
If A was only suspended, its deadline is over when it wakes up, and its epoch is not the shard's any
more.
"""
