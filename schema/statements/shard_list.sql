-- Return all shards of the default target, from their lease rows.
SELECT shard FROM {schema}.outbox_leases WHERE shard < 1024 ORDER BY shard
