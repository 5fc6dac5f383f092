-- Read a page of failures by key, and return those that match the filter and still have
-- an outbox row. The first three columns say how far the page reached.
-- position null: from the first failure of event_id on. retry_at null: blocked. behind: the previous message of its subject still waits.
WITH page AS (
  SELECT f.event_id, f.position, f.shard, f.attempts, f.last_error,
    nullif(f.retry_at, 'infinity') AS retry_at
  FROM {schema}.outbox_failures f
  WHERE f.event_id >= %(event_id)s::uuid AND f.event_id <= %(last)s::uuid
    AND (f.event_id > %(event_id)s::uuid OR %(position)s::bigint IS NULL
      OR f.position > %(position)s::bigint)
  ORDER BY f.event_id, f.position
  LIMIT %(rows)s
), bounds AS (
  SELECT count(*) AS seen,
    (SELECT event_id FROM page ORDER BY event_id DESC LIMIT 1) AS last_id,
    (SELECT position FROM page ORDER BY event_id DESC, position DESC LIMIT 1) AS last_position
  FROM page
), found AS (
  SELECT page.*, o.subject_type, o.subject_id, o.subject_version, o.topic,
    o.previous_position > 0 AND EXISTS (
      SELECT FROM {schema}.outbox p
      WHERE p.shard = o.shard AND p.position = o.previous_position
        AND p.subject_type = o.subject_type AND p.subject_id = o.subject_id) AS behind
  FROM page
  JOIN {schema}.outbox o
    ON o.shard = page.shard AND o.position = page.position AND o.event_id = page.event_id
)
SELECT bounds.seen, bounds.last_id, bounds.last_position, found.event_id, found.position,
  found.shard, found.subject_type, found.subject_id, found.subject_version, found.topic,
  found.last_error, found.attempts, found.retry_at, found.behind
FROM bounds
LEFT JOIN found
  ON (NOT %(blocked)s OR found.retry_at IS NULL)
  AND (%(subject_type)s::text IS NULL
    OR found.subject_type = %(subject_type)s::text AND found.subject_id = %(subject_id)s::text)
  AND (%(topic)s::text IS NULL OR found.topic = %(topic)s::text)
ORDER BY found.event_id, found.position
