-- One lease row per shard; those that exist keep owner and epoch.
INSERT INTO {schema}.outbox_leases (shard, owner, epoch, expires_at)
SELECT shard, NULL, 0, NULL FROM generate_series(0, {shards} - 1) AS shard
ON CONFLICT (shard) DO NOTHING
