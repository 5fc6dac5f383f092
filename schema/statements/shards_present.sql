-- Return how many shards must exist, by the highest number, and how many exist.
SELECT coalesce(max(shard) + 1, 0), count(*) FROM {schema}.outbox_leases
