-- Return the failed messages of some shards with their subjects, from one page of all failures.
-- The first three columns say how far the page reached. seconds: until the next
-- attempt, or infinity if blocked. It subtracts two epochs, because PostgreSQL before 17
-- cannot subtract from infinity.
WITH page AS (
  SELECT f.event_id, f.position, f.shard, f.attempts, f.retry_at
  FROM {schema}.outbox_failures f
  WHERE f.event_id >= %(event_id)s::uuid
    AND (f.event_id > %(event_id)s::uuid OR f.position > %(position)s::bigint)
  ORDER BY f.event_id, f.position
  LIMIT {rows}
), bounds AS (
  SELECT count(*) AS seen,
    (SELECT event_id::text FROM page ORDER BY event_id DESC LIMIT 1) AS last_id,
    (SELECT position FROM page ORDER BY event_id DESC, position DESC LIMIT 1) AS last_position
  FROM page
), found AS (
  SELECT page.shard, page.position, page.event_id::text AS event_id, page.attempts,
    o.subject_type, o.subject_id,
    (extract(epoch FROM page.retry_at) - extract(epoch FROM clock_timestamp()))::float8 AS seconds,
    octet_length(o.payload) AS size
  FROM page
  JOIN {schema}.outbox o
    ON o.shard = page.shard AND o.position = page.position AND o.event_id = page.event_id
  WHERE page.shard = ANY(%(shards)s::text::int[])
)
SELECT bounds.seen, bounds.last_id, bounds.last_position, found.shard, found.position,
  found.event_id, found.attempts, found.subject_type, found.subject_id, found.seconds, found.size
FROM bounds
LEFT JOIN found ON true
