-- Which shard holds the message that waits longest, and for how many seconds: one
-- index probe a shard, however many rows wait. No row: nothing waits.
SELECT l.shard,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM b.created_at))::float8 AS age
FROM {schema}.outbox_leases l
CROSS JOIN LATERAL (
  SELECT created_at FROM {schema}.outbox_backlog o
  WHERE o.shard = l.shard ORDER BY o.position LIMIT 1
) AS b
ORDER BY b.created_at LIMIT 1
