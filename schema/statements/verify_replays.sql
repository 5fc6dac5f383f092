-- Read a page of replays in the order of their key, and return those without an event, without the
-- replay before, or at a position that is not above that of both. The first three columns say how far
-- the page reached. Row by row, since a join would read a whole table for each page.
WITH page AS (
  SELECT event_id, number, position
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
  SELECT page.event_id, page.number, b.id IS NOT NULL AS is_stored,
    page.number = 1 OR before.position IS NOT NULL AS is_next
  FROM page
  LEFT JOIN LATERAL (
    SELECT id, position FROM {schema}.business_events WHERE id = page.event_id LIMIT 1) AS b ON true
  LEFT JOIN LATERAL (
    SELECT position
    FROM {schema}.outbox_replays
    WHERE event_id = page.event_id AND number = page.number - 1
    LIMIT 1) AS before ON true
  WHERE b.id IS NULL OR page.number > 1 AND before.position IS NULL
    OR page.position <= greatest(b.position, before.position)
)
SELECT bounds.seen, reached.event_id AS reached_event, reached.number AS reached_number,
  found.event_id, found.number, found.is_stored, found.is_next
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON true
ORDER BY found.event_id, found.number
