-- Return the failed messages of some shards with their subjects, from one page of all failures.
-- The first four columns say how far the page reached. seconds: until the next
-- attempt, or infinity if blocked. It subtracts two epochs, because PostgreSQL before 17
-- cannot subtract from infinity.
WITH page AS (
  SELECT f.shard, f.position, f.event_id, f.attempts, f.retry_at
  FROM {schema}.outbox_failures f
  WHERE f.shard >= %(shard)s::int AND (f.shard, f.position, f.event_id)
    > (%(shard)s::int, %(position)s::bigint, %(event_id)s::uuid)
  ORDER BY f.shard, f.position, f.event_id
  LIMIT {rows}
), reached AS (
  SELECT shard, position, event_id::text AS event_id FROM page
  ORDER BY shard DESC, position DESC, event_id DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen FROM page
), found AS (
  SELECT page.shard, page.position, page.event_id::text AS event_id, page.attempts,
    o.subject_type, o.subject_id,
    (extract(epoch FROM page.retry_at) - extract(epoch FROM clock_timestamp()))::float8 AS seconds,
    coalesce(octet_length(o.payload), greatest(o.payload_size, 0)) AS size
  FROM page
  JOIN {schema}.outbox o
    ON o.shard = page.shard AND o.position = page.position AND o.event_id = page.event_id
  WHERE page.shard = ANY(%(shards)s::text::int[])
)
SELECT bounds.seen, reached.shard AS last_shard, reached.position AS last_position,
  reached.event_id AS last_id, found.shard, found.position, found.event_id,
  found.attempts, found.subject_type, found.subject_id, found.seconds, found.size
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON true
