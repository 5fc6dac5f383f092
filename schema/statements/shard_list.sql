-- All shards, by their lease rows.
SELECT shard FROM {schema}.outbox_leases ORDER BY shard
