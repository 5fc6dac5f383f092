-- Read a page of the outbox by key, for the question whether a message waits for the relay.
-- A message does not wait for the relay if it waits for an operator: its topic is paused, it
-- is blocked, or it is behind such a message. The statement returns two kinds of messages:
-- those that are blocked, and those that are the first of their subject and of a topic that
-- is not paused. The caller leaves out the second kind behind the first. The first four
-- columns say how far the page reached.
-- last: the last shard. shards: an array of those that count, or null for all.
-- LEFT JOIN without a condition on retry_at: with one, a planner without statistics expects
-- few failures, and reads all of them again for every row.
WITH page AS (
  SELECT shard, position, event_id, previous_position, subject_type, subject_id, topic
  FROM {schema}.outbox
  WHERE shard BETWEEN %(shard)s::int AND %(last)s::int
    AND (shard, position, event_id) > (%(shard)s::int, %(position)s::bigint, %(event_id)s::uuid)
  ORDER BY shard, position, event_id
  LIMIT %(rows)s
), reached AS (
  SELECT shard, position, event_id FROM page
  ORDER BY shard DESC, position DESC, event_id DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen FROM page
), found AS (
  SELECT page.*, coalesce(f.retry_at = 'infinity', false) AS is_blocked
  FROM page
  LEFT JOIN {schema}.outbox_failures f
    ON f.shard = page.shard AND f.position = page.position AND f.event_id = page.event_id
  WHERE %(shards)s::text IS NULL OR page.shard = ANY(%(shards)s::text::int[])
)
SELECT bounds.seen, reached.shard, reached.position, reached.event_id, found.shard,
  found.subject_type, found.subject_id, found.is_blocked
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON found.is_blocked
  OR NOT EXISTS (
    SELECT FROM {schema}.outbox_topics t JOIN {schema}.outbox_targets g ON g.name = t.target
    WHERE t.topic = found.topic
      AND found.shard BETWEEN g.first_shard AND g.first_shard + 1023)
  AND NOT (found.previous_position > 0 AND found.previous_position < found.position AND EXISTS (
    SELECT FROM {schema}.outbox p
    WHERE p.shard = found.shard AND p.position = found.previous_position
      AND p.subject_type = found.subject_type AND p.subject_id = found.subject_id))
ORDER BY found.shard, found.position, found.event_id
