-- Read a page of dead letters in the order of their key, and return those without an event.
-- The first three columns say how far the page reached. died_at: as text, since it may be a
-- time that no client can load. Row by row, since a join would read a whole table for each page.
WITH page AS (
  SELECT event_id, died_at
  FROM {schema}.dead_letters
  WHERE event_id >= %(event_id)s::text::uuid
    AND (event_id, died_at) > (%(event_id)s::text::uuid, %(died_at)s::text::timestamptz)
  ORDER BY event_id, died_at
  LIMIT %(rows)s
), reached AS (
  SELECT event_id, died_at FROM page
  ORDER BY event_id DESC, died_at DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen FROM page
), found AS (
  SELECT page.event_id, page.died_at
  FROM page
  LEFT JOIN LATERAL (
    SELECT id FROM {schema}.business_events WHERE id = page.event_id LIMIT 1) AS b ON true
  WHERE b.id IS NULL
)
SELECT bounds.seen, reached.event_id AS reached_event, reached.died_at::text AS reached_at,
  found.event_id, found.died_at::text AS died_at
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON true
ORDER BY found.event_id, found.died_at
