-- Read a page of failures by key, and return the messages that match the filter and still wait
-- in the outbox. seen and reached say how far the page reached; place is the key of a failure.
-- retry_at null: blocked. behind: the
-- previous message of its subject still waits; it is a count, as PostgreSQL would hash the
-- whole outbox for an EXISTS. paused: its topic is paused.
WITH page AS (
  SELECT f.shard, f.position, f.event_id, f.attempts, f.last_error,
    nullif(f.retry_at, 'infinity') AS retry_at
  FROM {schema}.outbox_failures f
  WHERE f.shard >= %(shard)s::text::int AND (f.shard, f.position, f.event_id)
    > (%(shard)s::text::int, %(position)s::text::bigint, %(event_id)s::text::uuid)
    AND f.shard <= %(last_shard)s
  ORDER BY f.shard, f.position, f.event_id
  LIMIT %(rows)s
), bounds AS (
  SELECT count(*) AS seen,
    (SELECT shard || '/' || position || '/' || event_id FROM page
     ORDER BY shard DESC, position DESC, event_id DESC LIMIT 1) AS reached
  FROM page
), found AS (
  SELECT page.*, o.subject_type, o.subject_id, o.subject_version, o.topic, o.headers,
    o.payload_size AS payload_bytes, o.created_at,
    (
      SELECT count(*) > 0 FROM (
        SELECT FROM {schema}.outbox p
        WHERE o.previous_position > 0
          AND p.shard = o.shard AND p.position = o.previous_position
          AND p.subject_type = o.subject_type AND p.subject_id = o.subject_id
        LIMIT 1) AS before) AS behind,
    EXISTS (
      SELECT FROM {schema}.outbox_topics t JOIN {schema}.outbox_targets g ON g.name = t.target
      WHERE t.topic = o.topic
        AND o.shard BETWEEN g.first_shard AND g.first_shard + 1023) AS paused
  FROM page
  JOIN {schema}.outbox o
    ON o.shard = page.shard AND o.position = page.position AND o.event_id = page.event_id
)
SELECT bounds.seen, bounds.reached, 'failing' AS state,
  found.shard || '/' || found.position || '/' || found.event_id AS place, found.event_id,
  found.subject_type, found.subject_id, found.subject_version, found.topic,
  found.headers::text AS headers, found.payload_bytes, found.created_at, found.shard, found.position,
  found.attempts, found.last_error AS error, found.retry_at, found.behind, found.paused,
  NULL::timestamptz AS died_at, NULL::int AS replays,
  (
    SELECT g.name FROM {schema}.outbox_targets g
    WHERE found.shard BETWEEN g.first_shard AND g.first_shard + 1023
      AND (SELECT count(*) FROM {schema}.outbox_targets) > 1) AS target
FROM bounds
LEFT JOIN found
  ON (NOT %(blocked)s OR found.retry_at IS NULL)
  AND (%(subject_type)s::text IS NULL OR found.subject_type = %(subject_type)s::text)
  AND (%(subject_id)s::text IS NULL OR found.subject_id = %(subject_id)s::text)
  AND (%(topic)s::text IS NULL OR found.topic = %(topic)s::text)
  AND (%(error)s::text IS NULL OR lower(found.last_error) LIKE lower(%(error)s::text))
  AND (%(since)s::text IS NULL OR found.created_at >= %(since)s::text::timestamptz)
  AND (%(until)s::text IS NULL OR found.created_at < %(until)s::text::timestamptz)
ORDER BY found.shard, found.position, found.event_id
