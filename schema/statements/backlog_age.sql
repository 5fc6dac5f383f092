-- Return the shard with the oldest message, and the age of that message in seconds.
-- One index probe per shard, however many rows wait. No row: no message waits.
SELECT l.shard,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM b.created_at))::float8 AS age
FROM {schema}.outbox_leases l
CROSS JOIN LATERAL (
  SELECT created_at FROM {schema}.outbox_backlog o
  WHERE o.shard = l.shard ORDER BY o.position LIMIT 1
) AS b
ORDER BY b.created_at LIMIT 1
