-- Return a page of headers in the order of their key, each with its event. version,
-- last_position: of the entity, in its last row and behind a gap alone, since looking
-- it up for every header would take a third of the time; a key that is NULL is not looked up.
-- touches: of an event that has another entity as its subject. is_alike: name, type and date are those
-- of the event. forgotten: the time up to which events may
-- be forgotten, and is_old: saved before it. Row by row, since a join would read a whole table for
-- each page.
SELECT h.entity_type, h.entity_id, h.entity_version, h.event_id, b.id IS NOT NULL AS is_stored,
  b.subject_type = h.entity_type AND b.subject_id = h.entity_id AS is_subject,
  b.subject_version, b.position, b.previous_position,
  CASE WHEN b.subject_type <> h.entity_type OR b.subject_id <> h.entity_id
    THEN b.touches::text END AS touches,
  h.event_name = b.event_name AND h.event_type = b.event_type
    AND h.created_date IS NOT DISTINCT FROM b.created_date AS is_alike,
  e.version, e.position AS last_position, j.forgotten_before::text AS forgotten,
  h.saved_date < j.forgotten_before AS is_old
FROM (
  SELECT page.*,
    lead(entity_type) OVER ordered IS DISTINCT FROM entity_type
      OR lead(entity_id) OVER ordered IS DISTINCT FROM entity_id
      OR lag((entity_type, entity_id, entity_version + 1)) OVER ordered
        IS DISTINCT FROM (entity_type, entity_id, entity_version)
        AND entity_version > 1 AS is_looked_up
  FROM (
    SELECT entity_type, entity_id, entity_version, event_id, event_name, event_type, created_date,
      saved_date
    FROM {schema}.event_headers
    WHERE entity_type >= %(entity_type)s::text AND (entity_type, entity_id, entity_version)
      > (%(entity_type)s::text, %(entity_id)s::text, %(version)s::bigint)
    ORDER BY entity_type, entity_id, entity_version
    LIMIT %(rows)s) AS page
  WINDOW ordered AS (ORDER BY entity_type, entity_id, entity_version)) AS h
LEFT JOIN LATERAL (
  SELECT id, event_name, event_type, created_date, subject_type, subject_id, subject_version,
    position, previous_position, touches
  FROM {schema}.business_events
  WHERE id = h.event_id
  LIMIT 1) AS b ON true
LEFT JOIN LATERAL (
  SELECT version, position
  FROM {schema}.entities
  WHERE entity_type = CASE WHEN h.is_looked_up THEN h.entity_type END AND entity_id = h.entity_id
  LIMIT 1) AS e ON true
LEFT JOIN {schema}.outbox_jobs j ON j.name = 'life'
ORDER BY h.entity_type, h.entity_id, h.entity_version
