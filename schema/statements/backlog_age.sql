-- Return the shard with the oldest message of a target, and the age of that message in seconds.
-- target null: of all that are sent to a broker. One index probe per shard, however many rows
-- wait. No row: no message waits.
SELECT l.shard,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM b.created_at))::float8 AS age
FROM {schema}.outbox_targets t
JOIN {schema}.outbox_leases l ON l.shard BETWEEN t.first_shard AND t.first_shard + 1023
CROSS JOIN LATERAL (
  SELECT created_at FROM {schema}.outbox_backlog o
  WHERE o.shard = l.shard ORDER BY o.position LIMIT 1
) AS b
WHERE t.state = 'running'
  AND CASE WHEN %(target)s::text IS NULL THEN t.kind = 'sink' ELSE t.name = %(target)s::text END
ORDER BY b.created_at LIMIT 1
