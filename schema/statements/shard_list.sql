-- Return all shards, from their lease rows.
SELECT shard FROM {schema}.outbox_leases ORDER BY shard
