-- Read a page of dead letters by key, and return those that match the filter. So a
-- statement reads a bounded number of rows, however few match. seen and reached say how far
-- the page reached; place is the key of a letter.
-- The time of death is text where it is a key, since it may be a time that no client represents.
-- died_at null: from the first letter of event_id on. event_ids null: those of all events.
WITH page AS (
  SELECT event_id, died_at, shard, position, subject_type, subject_id, subject_version, topic,
    headers, payload_size AS bytes, created_at, error, attempts, replays
  FROM {schema}.dead_letters
  WHERE event_id >= %(event_id)s::text::uuid
    AND (event_id > %(event_id)s::text::uuid OR %(died_at)s::text IS NULL
      OR died_at > %(died_at)s::text::timestamptz)
    AND (%(event_ids)s::text IS NULL OR event_id = ANY(%(event_ids)s::text::uuid[]))
  ORDER BY event_id, died_at
  LIMIT %(rows)s
), bounds AS (
  SELECT count(*) AS seen,
    (SELECT event_id || '/' || died_at FROM page
     ORDER BY event_id DESC, died_at DESC LIMIT 1) AS reached
  FROM page
)
SELECT bounds.seen, bounds.reached, 'dead' AS state,
  page.event_id || '/' || page.died_at AS place, page.event_id,
  page.subject_type, page.subject_id, page.subject_version, page.topic,
  page.headers::text AS headers, page.bytes, page.created_at, page.shard, page.position,
  page.attempts, page.error, NULL::timestamptz AS retry_at, false AS behind, false AS paused,
  page.died_at, page.replays
FROM bounds
LEFT JOIN page
  ON (%(subject_type)s::text IS NULL OR page.subject_type = %(subject_type)s::text)
  AND (%(subject_id)s::text IS NULL OR page.subject_id = %(subject_id)s::text)
  AND (%(topic)s::text IS NULL OR page.topic = %(topic)s::text)
  AND (%(error)s::text IS NULL OR position(lower(%(error)s::text) IN lower(page.error)) > 0)
  AND (%(since)s::text IS NULL OR page.died_at >= %(since)s::text::timestamptz)
  AND (%(until)s::text IS NULL OR page.died_at < %(until)s::text::timestamptz)
ORDER BY page.event_id, page.died_at
