-- Take leases that are free, that expired more than grace seconds ago, or that we took
-- before without receiving the answer. The epoch must be the one that was read, so a
-- delayed statement cannot undo a later change. If two publishers take a lease at the
-- same time, on PostgreSQL the second sees the first's row and updates nothing. On DSQL
-- one of them fails.
UPDATE {schema}.outbox_leases l
SET owner = %(owner)s, epoch = l.epoch + 1,
  expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
FROM unnest(%(shards)s::text::int[], %(epochs)s::text::bigint[]) AS k(shard, epoch)
WHERE l.shard = k.shard AND l.epoch = k.epoch
  AND (l.owner IS NULL OR l.owner = %(owner)s
    OR l.expires_at < clock_timestamp() - %(grace)s::float8 * interval '1 second')
RETURNING l.shard
