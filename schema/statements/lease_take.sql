-- Take leases that are free, that ended more than grace seconds ago, or that are ours
-- by a taking whose answer was lost. The epoch must be the one that was read, so what
-- is late on the wire changes nothing that happened since. Of two who take one at a
-- time, PostgreSQL lets the second see the first's row and refuse; DSQL lets one fail.
UPDATE {schema}.outbox_leases l
SET owner = %(owner)s, epoch = l.epoch + 1,
  expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
FROM unnest(%(shards)s::text::int[], %(epochs)s::text::bigint[]) AS k(shard, epoch)
WHERE l.shard = k.shard AND l.epoch = k.epoch
  AND (l.owner IS NULL OR l.owner = %(owner)s
    OR l.expires_at < clock_timestamp() - %(grace)s::float8 * interval '1 second')
RETURNING l.shard
