-- Return per target the numbers of its messages that wait, of those that failed, and of its dead
-- letters, and the age in seconds of its oldest message. Each count stops one above {limit}.
-- events to forgotten: how far its fill is.
SELECT t.name, t.kind, t.state, t.first_shard,
  (SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox_backlog o
    WHERE o.shard BETWEEN t.first_shard AND t.first_shard + 1023 LIMIT {limit} + 1) AS w) AS waiting,
  (SELECT count(*) FROM (SELECT 1 FROM {schema}.outbox_failures f
    WHERE f.shard BETWEEN t.first_shard AND t.first_shard + 1023 LIMIT {limit} + 1) AS w) AS failing,
  (SELECT count(*) FROM (SELECT 1 FROM {schema}.dead_letters d
    WHERE d.shard BETWEEN t.first_shard AND t.first_shard + 1023 LIMIT {limit} + 1) AS w) AS dead,
  (SELECT (extract(epoch FROM clock_timestamp()) - extract(epoch FROM min(b.created_at)))::float8
    FROM {schema}.outbox_leases l
    CROSS JOIN LATERAL (
      SELECT o.created_at FROM {schema}.outbox_backlog o
      WHERE o.shard = l.shard ORDER BY o.position LIMIT 1) AS b
    WHERE l.shard BETWEEN t.first_shard AND t.first_shard + 1023) AS age,
  f.events, f.messages, f.forgotten
FROM {schema}.outbox_targets t
LEFT JOIN {schema}.outbox_fills f ON f.target = t.name
WHERE t.state <> 'dropped'
ORDER BY t.first_shard
