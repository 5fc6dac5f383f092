-- Return the shard with the oldest message of a target, the age of that message in seconds, and its
-- position. target null: of all that are sent to a broker. One index probe per shard, however many
-- rows wait. No row: no message waits.
-- since: the position to look from, since a look passes over each deleted row that an old snapshot
-- keeps there.
SELECT l.shard,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM b.created_at))::float8 AS age,
  b.position
FROM {schema}.outbox_targets t
JOIN {schema}.outbox_leases l ON l.shard BETWEEN t.first_shard AND t.first_shard + 1023
CROSS JOIN LATERAL (
  SELECT created_at, position FROM {schema}.outbox_backlog o
  WHERE o.shard = l.shard AND o.position >= %(since)s::bigint ORDER BY o.position LIMIT 1
) AS b
WHERE t.state = 'running'
  AND CASE WHEN %(target)s::text IS NULL THEN t.kind = 'sink' ELSE t.name = %(target)s::text END
ORDER BY b.created_at LIMIT 1
