-- Read a page of dead letters, the newest first, by the second key, and return those that match
-- the filter. So a statement reads a bounded number of rows, however few match. seen and reached
-- say how far the page reached; place is the key of a letter.
-- The time of death is text where it is a key, since it may be a time that no client represents.
-- event_id null: from the newest letter of died_at on.
WITH page AS (
  SELECT event_id, died_at, shard, position, subject_type, subject_id, subject_version, topic,
    headers, payload_size AS payload_bytes, created_at, error, attempts, replays
  FROM {schema}.dead_letters
  WHERE died_at <= %(died_at)s::text::timestamptz
    AND died_at >= coalesce(%(since)s::text::timestamptz, '-infinity')
    AND (%(event_id)s::text IS NULL OR died_at < %(died_at)s::text::timestamptz
      OR event_id < %(event_id)s::text::uuid)
  ORDER BY died_at DESC, event_id DESC
  LIMIT %(rows)s
), bounds AS (
  SELECT count(*) AS seen,
    (SELECT event_id || '/' || died_at FROM page ORDER BY died_at, event_id LIMIT 1) AS reached
  FROM page
)
SELECT bounds.seen, bounds.reached, 'dead' AS state,
  page.event_id || '/' || page.died_at AS place, page.event_id,
  page.subject_type, page.subject_id, page.subject_version, page.topic,
  page.headers::text AS headers, page.payload_bytes, page.created_at, page.shard, page.position,
  page.attempts, page.error, NULL::timestamptz AS retry_at, false AS behind, false AS paused,
  page.died_at, page.replays,
  (
    SELECT g.name FROM {schema}.outbox_targets g
    WHERE page.shard BETWEEN g.first_shard AND g.first_shard + 1023
      AND (SELECT count(*) FROM {schema}.outbox_targets) > 1) AS target
FROM bounds
LEFT JOIN page
  ON page.shard BETWEEN %(first_shard)s AND %(last_shard)s
  AND (%(subject_type)s::text IS NULL OR page.subject_type = %(subject_type)s::text)
  AND (%(subject_id)s::text IS NULL OR page.subject_id = %(subject_id)s::text)
  AND (%(topic)s::text IS NULL OR page.topic = %(topic)s::text)
  AND (%(error)s::text IS NULL OR lower(page.error) LIKE lower(%(error)s::text))
  AND (%(since)s::text IS NULL OR page.died_at >= %(since)s::text::timestamptz)
  AND (%(until)s::text IS NULL OR page.died_at < %(until)s::text::timestamptz)
ORDER BY page.died_at DESC, page.event_id DESC
