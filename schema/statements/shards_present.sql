-- Return how many shards must exist, by the highest number, and how many exist. A number
-- outside 0 to {most} - 1 is no shard of a writer.
SELECT coalesce(max(shard) + 1, 0), count(*) FROM {schema}.outbox_leases
WHERE shard >= 0 AND shard < {most}
