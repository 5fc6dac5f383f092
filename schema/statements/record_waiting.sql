-- Return the outbox rows of some events: their first messages and their replays. All look-ups
-- are by key. replay: 0 for the first message. retry_at null: no failure, or blocked.
-- behind: the previous message of its subject still waits. paused: its topic is paused.
WITH sent AS (
  SELECT b.id, b.shard, b.position, 0 AS replay
  FROM unnest(%(event_ids)s::text::uuid[]) AS k(id)
  JOIN {schema}.business_events b ON b.id = k.id
  UNION ALL
  SELECT b.id, b.shard, r.position, r.number
  FROM unnest(%(event_ids)s::text::uuid[]) AS k(id)
  JOIN {schema}.business_events b ON b.id = k.id
  JOIN {schema}.outbox_replays r ON r.event_id = k.id
)
SELECT s.id, s.replay, o.shard, o.position, o.topic,
  f.attempts, f.last_error, nullif(f.retry_at, 'infinity') AS retry_at,
  o.previous_position > 0 AND EXISTS (
    SELECT FROM {schema}.outbox p
    WHERE p.shard = o.shard AND p.position = o.previous_position
      AND p.subject_type = o.subject_type AND p.subject_id = o.subject_id) AS behind,
  EXISTS (SELECT FROM {schema}.outbox_topics t WHERE t.topic = o.topic) AS paused
FROM sent s
JOIN {schema}.outbox o ON o.shard = s.shard AND o.position = s.position AND o.event_id = s.id
LEFT JOIN {schema}.outbox_failures f ON f.event_id = o.event_id AND f.position = o.position
ORDER BY s.id, s.replay
