-- Read a page of the outbox by key, and return the messages without a failure that match the
-- filter. So a statement reads a bounded number of rows, however few match. seen and reached
-- say how far the page reached; place is the key of a message. behind: the previous message of
-- its subject still waits. It is a count, as PostgreSQL would hash the whole outbox for an EXISTS.
WITH page AS (
  SELECT shard, position, event_id, previous_position, subject_type, subject_id, subject_version,
    topic, headers, payload_size AS payload_bytes, created_at
  FROM {schema}.outbox
  WHERE shard >= %(shard)s::text::int AND (shard, position, event_id)
    > (%(shard)s::text::int, %(position)s::text::bigint, %(event_id)s::text::uuid)
    AND shard <= %(last_shard)s
  ORDER BY shard, position, event_id
  LIMIT %(rows)s
), bounds AS (
  SELECT count(*) AS seen,
    (SELECT shard || '/' || position || '/' || event_id FROM page
     ORDER BY shard DESC, position DESC, event_id DESC LIMIT 1) AS reached
  FROM page
), found AS (
  SELECT page.*, (
      SELECT count(*) > 0 FROM (
        SELECT FROM {schema}.outbox p
        WHERE page.previous_position > 0
          AND p.shard = page.shard AND p.position = page.previous_position
          AND p.subject_type = page.subject_type AND p.subject_id = page.subject_id
        LIMIT 1) AS before) AS behind,
    EXISTS (
      SELECT FROM {schema}.outbox_topics t JOIN {schema}.outbox_targets g ON g.name = t.target
      WHERE t.topic = page.topic
        AND page.shard BETWEEN g.first_shard AND g.first_shard + 1023) AS paused
  FROM page
  LEFT JOIN {schema}.outbox_failures f
    ON f.shard = page.shard AND f.position = page.position AND f.event_id = page.event_id
  WHERE f.event_id IS NULL
    AND (%(subject_type)s::text IS NULL OR page.subject_type = %(subject_type)s::text)
    AND (%(subject_id)s::text IS NULL OR page.subject_id = %(subject_id)s::text)
    AND (%(topic)s::text IS NULL OR page.topic = %(topic)s::text)
    AND (%(since)s::text IS NULL OR page.created_at >= %(since)s::text::timestamptz)
    AND (%(until)s::text IS NULL OR page.created_at < %(until)s::text::timestamptz)
)
SELECT bounds.seen, bounds.reached, 'waiting' AS state,
  found.shard || '/' || found.position || '/' || found.event_id AS place, found.event_id,
  found.subject_type, found.subject_id, found.subject_version, found.topic,
  found.headers::text AS headers, found.payload_bytes, found.created_at, found.shard, found.position,
  NULL::int AS attempts, NULL::text AS error, NULL::timestamptz AS retry_at, found.behind,
  found.paused, NULL::timestamptz AS died_at, NULL::int AS replays,
  (
    SELECT g.name FROM {schema}.outbox_targets g
    WHERE found.shard BETWEEN g.first_shard AND g.first_shard + 1023
      AND (SELECT count(*) FROM {schema}.outbox_targets) > 1) AS target
FROM bounds
LEFT JOIN found ON true
ORDER BY found.shard, found.position, found.event_id
