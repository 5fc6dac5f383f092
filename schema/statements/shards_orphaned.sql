-- Return shards that hold messages but have no lease, so no publisher relays them. It
-- steps from shard to shard by key: one read per shard, however many rows. It reads the
-- view, so the role needs no right to read messages. A target that is not relayed yet has no
-- leases.
WITH RECURSIVE held AS (
  (SELECT shard FROM {schema}.outbox_backlog ORDER BY shard LIMIT 1)
  UNION ALL
  SELECT (SELECT o.shard FROM {schema}.outbox_backlog AS o WHERE o.shard > held.shard
    ORDER BY o.shard LIMIT 1)
  FROM held WHERE held.shard IS NOT NULL
)
SELECT held.shard FROM held
WHERE held.shard IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM {schema}.outbox_leases AS l WHERE l.shard = held.shard)
  AND NOT EXISTS (
    SELECT 1 FROM {schema}.outbox_targets AS t
    WHERE t.state IN ('opening', 'filling')
      AND held.shard BETWEEN t.first_shard AND t.first_shard + 1023)
ORDER BY held.shard LIMIT 10
