-- Failures of messages that are no longer in the outbox: recorded by a publisher that
-- did not know yet that it had lost the shard. Asked for when a shard is taken.
DELETE FROM {schema}.outbox_failures f
USING unnest(%(shards)s::text::int[]) AS k(shard)
WHERE f.shard = k.shard AND NOT EXISTS (
  SELECT FROM {schema}.outbox o
  WHERE o.shard = f.shard AND o.position = f.position AND o.event_id = f.event_id)
