-- Release leases, so that other publishers can take them immediately.
UPDATE {schema}.outbox_leases l
SET owner = NULL, expires_at = NULL
FROM unnest(%(shards)s::text::int[], %(epochs)s::text::bigint[]) AS k(shard, epoch)
WHERE l.shard = k.shard AND l.epoch = k.epoch AND l.owner = %(owner)s
RETURNING l.shard
