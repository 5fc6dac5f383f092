-- Read a page of replays in the order of their key, and return those without an event. The first
-- three columns say how far the page reached. Row by row, since a join would read a whole table
-- for each page.
WITH page AS (
  SELECT event_id, number
  FROM {schema}.outbox_replays
  WHERE event_id >= %(event_id)s::text::uuid
    AND (event_id, number) > (%(event_id)s::text::uuid, %(number)s::int)
  ORDER BY event_id, number
  LIMIT %(rows)s
), reached AS (
  SELECT event_id, number FROM page
  ORDER BY event_id DESC, number DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen FROM page
), found AS (
  SELECT page.event_id, page.number
  FROM page
  LEFT JOIN LATERAL (
    SELECT id FROM {schema}.business_events WHERE id = page.event_id LIMIT 1) AS b ON true
  WHERE b.id IS NULL
)
SELECT bounds.seen, reached.event_id AS reached_event, reached.number AS reached_number,
  found.event_id, found.number
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON true
ORDER BY found.event_id, found.number
