-- Return per shard the number of waiting messages. Counting stops one above {limit}, per shard.
SELECT l.shard, b.waiting
FROM {schema}.outbox_leases l
CROSS JOIN LATERAL (
  SELECT count(*) AS waiting
  FROM (SELECT 1 FROM {schema}.outbox_backlog o WHERE o.shard = l.shard LIMIT {limit} + 1) AS c
) AS b
ORDER BY l.shard
