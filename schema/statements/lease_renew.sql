-- Keep leases for longer. An expired lease is renewed too, unless another publisher took
-- it: that would have changed the epoch.
UPDATE {schema}.outbox_leases l
SET expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
FROM unnest(%(shards)s::text::int[], %(epochs)s::text::bigint[]) AS k(shard, epoch)
WHERE l.shard = k.shard AND l.epoch = k.epoch AND l.owner = %(owner)s
RETURNING l.shard
