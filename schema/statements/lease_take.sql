-- Take leases that are free, that expired more than grace seconds ago, that nobody renewed
-- for their whole length by our own clock (ended: the expires_at that we saw so long, else
-- NaN), or that we took before without receiving the answer. The epoch must be the one that was read, so a
-- delayed statement cannot undo a later change. If two publishers take a lease at the
-- same time, on PostgreSQL the second sees the first's row and updates nothing. On DSQL
-- one of them fails.
UPDATE {schema}.outbox_leases l
SET owner = %(owner)s, epoch = l.epoch + 1,
  expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
FROM unnest(%(shards)s::text::int[], %(epochs)s::text::bigint[],
  %(ended)s::text::float8[]) AS k(shard, epoch, ended)
WHERE l.shard = k.shard AND l.epoch = k.epoch
  AND (l.owner IS NULL OR l.owner = %(owner)s
    OR l.expires_at < clock_timestamp() - %(grace)s::float8 * interval '1 second'
    OR extract(epoch FROM l.expires_at)::float8 = k.ended)
RETURNING l.shard
