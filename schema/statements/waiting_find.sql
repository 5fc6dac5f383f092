-- Return the outbox rows of some events that match the filter: their first messages and their
-- replays, for all targets. All look-ups are by key. state null: failing or waiting.
-- The other columns are those of failure_page and waiting_page.
-- first_shard, last_shard: of targets, since a range of the messages' own shards would be read as a whole.
-- The array is in a subquery: its length would make PostgreSQL read a table of up to some
-- 100,000 rows as a whole, for each call.
WITH found AS (
  SELECT m.*, f.attempts, f.last_error, nullif(f.retry_at, 'infinity') AS retry_at,
    CASE WHEN f.event_id IS NULL THEN 'waiting' ELSE 'failing' END AS state,
    m.shard || '/' || m.position || '/' || m.event_id AS place
  FROM unnest((SELECT %(event_ids)s::text::uuid[])) AS k(id)
  JOIN {schema}.business_events b ON b.id = k.id
  CROSS JOIN LATERAL {event_messages} AS m
  LEFT JOIN {schema}.outbox_failures f
    ON f.shard = m.shard AND f.position = m.position AND f.event_id = m.event_id
)
SELECT found.state, found.place, found.event_id, found.subject_type, found.subject_id,
  found.subject_version, found.topic, found.headers::text AS headers,
  found.payload_size AS payload_bytes, found.created_at, found.shard, found.position,
  found.attempts, found.last_error AS error, found.retry_at,
  (
    SELECT count(*) > 0 FROM (
      SELECT FROM {schema}.outbox p
      WHERE found.previous_position > 0
        AND p.shard = found.shard AND p.position = found.previous_position
        AND p.subject_type = found.subject_type AND p.subject_id = found.subject_id
      LIMIT 1) AS before) AS behind,
  EXISTS (
    SELECT FROM {schema}.outbox_topics t JOIN {schema}.outbox_targets g ON g.name = t.target
    WHERE t.topic = found.topic
      AND found.shard BETWEEN g.first_shard AND g.first_shard + 1023) AS paused,
  NULL::timestamptz AS died_at, NULL::int AS replays,
  CASE WHEN (SELECT count(*) FROM {schema}.outbox_targets) > 1 THEN found.target END AS target
FROM found
WHERE found.first_shard BETWEEN %(first_shard)s AND %(last_shard)s
  AND (%(state)s::text IS NULL OR found.state = %(state)s::text)
  AND (NOT %(blocked)s OR found.state = 'failing' AND found.retry_at IS NULL)
  AND (%(subject_type)s::text IS NULL OR found.subject_type = %(subject_type)s::text)
  AND (%(subject_id)s::text IS NULL OR found.subject_id = %(subject_id)s::text)
  AND (%(topic)s::text IS NULL OR found.topic = %(topic)s::text)
  AND (%(error)s::text IS NULL OR lower(found.last_error) LIKE lower(%(error)s::text))
  AND (%(since)s::text IS NULL OR found.created_at >= %(since)s::text::timestamptz)
  AND (%(until)s::text IS NULL OR found.created_at < %(until)s::text::timestamptz)
ORDER BY found.event_id, found.position
