-- Return the dead letters of some events that match the filter, the newest first. All look-ups are
-- by key. The columns are those of letter_page.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
WITH page AS (
  SELECT event_id, died_at, shard, position, subject_type, subject_id, subject_version, topic,
    headers, payload_size AS payload_bytes, created_at, error, attempts, replays
  FROM {schema}.dead_letters
  WHERE event_id = ANY((SELECT %(event_ids)s::text::uuid[])::uuid[])
)
SELECT 'dead' AS state,
  page.event_id || '/' || page.died_at AS place, page.event_id,
  page.subject_type, page.subject_id, page.subject_version, page.topic,
  page.headers::text AS headers, page.payload_bytes, page.created_at, page.shard, page.position,
  page.attempts, page.error, NULL::timestamptz AS retry_at, false AS behind, false AS paused,
  page.died_at, page.replays,
  (
    SELECT g.name FROM {schema}.outbox_targets g
    WHERE page.shard BETWEEN g.first_shard AND g.first_shard + 1023
      AND (SELECT count(*) FROM {schema}.outbox_targets) > 1) AS target
FROM page
WHERE page.shard BETWEEN %(first_shard)s AND %(last_shard)s
  AND (%(subject_type)s::text IS NULL OR page.subject_type = %(subject_type)s::text)
  AND (%(subject_id)s::text IS NULL OR page.subject_id = %(subject_id)s::text)
  AND (%(topic)s::text IS NULL OR page.topic = %(topic)s::text)
  AND (%(error)s::text IS NULL OR lower(page.error) LIKE lower(%(error)s::text))
  AND (%(since)s::text IS NULL OR page.died_at >= %(since)s::text::timestamptz)
  AND (%(until)s::text IS NULL OR page.died_at < %(until)s::text::timestamptz)
ORDER BY page.died_at DESC, page.event_id DESC
