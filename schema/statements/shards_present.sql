-- Return how many shards must exist, by the highest number, and how many exist. A number
-- outside 0 to {most} - 1 is no shard of a writer. Without the default target none counts, so
-- that it is made.
SELECT coalesce(max(shard) + 1, 0), count(*) FILTER (WHERE EXISTS (
    SELECT FROM {schema}.outbox_targets WHERE name = 'default'))
FROM {schema}.outbox_leases
WHERE shard >= 0 AND shard < {most}
