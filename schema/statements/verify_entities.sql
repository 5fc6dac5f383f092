-- Read a page of entities in the order of their key, and return those whose last event has no
-- header, or one of another event. The first three columns say how far the page reached. The events
-- of an entity that is older than forgotten_before may be forgotten.
-- Row by row, since a join would read a whole table for each page.
WITH page AS (
  SELECT entity_type, entity_id, version, event_id, updated_at
  FROM {schema}.entities
  WHERE entity_type >= %(entity_type)s::text
    AND (entity_type, entity_id) > (%(entity_type)s::text, %(entity_id)s::text)
  ORDER BY entity_type, entity_id
  LIMIT %(rows)s
), reached AS (
  SELECT entity_type, entity_id FROM page
  ORDER BY entity_type DESC, entity_id DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen FROM page
), found AS (
  SELECT page.entity_type, page.entity_id, page.version, page.event_id, h.event_id AS header_event
  FROM page
  LEFT JOIN LATERAL (
    SELECT event_id
    FROM {schema}.event_headers
    WHERE entity_type = page.entity_type AND entity_id = page.entity_id
      AND entity_version = page.version
    LIMIT 1) AS h ON true
  WHERE (h.event_id <> page.event_id OR h.event_id IS NULL
    AND (page.updated_at < (
      SELECT forgotten_before FROM {schema}.outbox_jobs WHERE name = 'life')) IS NOT TRUE)
)
SELECT bounds.seen, reached.entity_type AS reached_type, reached.entity_id AS reached_id,
  found.entity_type, found.entity_id, found.version, found.event_id, found.header_event
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON true
ORDER BY found.entity_type, found.entity_id
