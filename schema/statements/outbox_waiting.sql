-- Return whether a message waits for the relay. A message does not count if it waits for
-- an operator: it is of a topic that is paused, or blocked, or behind such a message.
-- shards: an array of the shards that count, or null for all.
SELECT EXISTS (
  SELECT FROM {schema}.outbox o
  WHERE (%(shards)s::text IS NULL OR o.shard = ANY(%(shards)s::text::int[]))
  AND NOT EXISTS (
    SELECT FROM {schema}.outbox_failures f
    JOIN {schema}.outbox b
      ON b.shard = f.shard AND b.position = f.position AND b.event_id = f.event_id
    WHERE f.retry_at = 'infinity' AND b.shard = o.shard
      AND b.subject_type = o.subject_type AND b.subject_id = o.subject_id)
  AND NOT EXISTS (
    SELECT FROM {schema}.outbox_topics t
    JOIN {schema}.outbox b ON b.topic = t.topic
    WHERE b.shard = o.shard AND b.position <= o.position
      AND b.subject_type = o.subject_type AND b.subject_id = o.subject_id))
