-- Read a page of entities in the order of their key, and return those whose last event has no
-- header, or one of another event. The first three columns say how far the page reached. is_left:
-- headers up to moved_version are there, which no erasure moves any more. The last event of an entity
-- may be one of those. The events of an entity that is older than forgotten_before may be forgotten.
-- Row by row, since a join would read a whole table for each page.
WITH page AS (
  SELECT entity_type, entity_id, version, event_id, updated_at, moved_version
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
  SELECT page.entity_type, page.entity_id, page.version, page.event_id, h.event_id AS header_event,
    m.is_left
  FROM page
  LEFT JOIN LATERAL (
    SELECT event_id
    FROM {schema}.event_headers
    WHERE entity_type = page.entity_type AND entity_id = page.entity_id
      AND entity_version = page.version
    LIMIT 1) AS h ON true
  CROSS JOIN LATERAL (
    SELECT page.moved_version IS NOT NULL AND EXISTS (
      SELECT FROM {schema}.event_headers
      WHERE entity_type = page.entity_type AND entity_id = page.entity_id
        AND entity_version <= page.moved_version)
      AND NOT EXISTS (
        SELECT FROM {schema}.outbox_erasures r
        WHERE r.entity_type = page.entity_type AND r.finished_at IS NULL) AS is_left) AS m
  WHERE m.is_left OR (page.version <= page.moved_version) IS NOT TRUE
    AND (h.event_id <> page.event_id OR h.event_id IS NULL
    AND (page.updated_at < (
      SELECT forgotten_before FROM {schema}.outbox_jobs WHERE name = 'life')) IS NOT TRUE)
)
SELECT bounds.seen, reached.entity_type AS reached_type, reached.entity_id AS reached_id,
  found.entity_type, found.entity_id, found.version, found.event_id, found.header_event,
  found.is_left
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON true
ORDER BY found.entity_type, found.entity_id
