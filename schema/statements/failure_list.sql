-- Return the failed messages of some shards with their subjects. seconds: until the next
-- attempt, or infinity if blocked. It subtracts two epochs, because PostgreSQL before 17
-- cannot subtract from infinity.
SELECT f.shard, f.position, f.event_id::text, f.attempts, o.subject_type, o.subject_id,
  (extract(epoch FROM f.retry_at) - extract(epoch FROM clock_timestamp()))::float8 AS seconds,
  octet_length(o.payload) AS size
FROM unnest(%(shards)s::text::int[]) AS k(shard)
JOIN {schema}.outbox_failures f ON f.shard = k.shard
JOIN {schema}.outbox o
  ON o.shard = f.shard AND o.position = f.position AND o.event_id = f.event_id
