-- Keep leases for longer. Also one that has ended, if nobody took it meanwhile: the
-- epoch tells.
UPDATE {schema}.outbox_leases l
SET expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
FROM unnest(%(shards)s::text::int[], %(epochs)s::text::bigint[]) AS k(shard, epoch)
WHERE l.shard = k.shard AND l.epoch = k.epoch AND l.owner = %(owner)s
RETURNING l.shard
