-- Shards that hold messages and have no lease, so that nobody relays them. Steps
-- from one shard to the next by key: as many reads as shards, however many rows. By the
-- view, so that who asks need not be allowed to read messages.
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
ORDER BY held.shard LIMIT 10
