-- Read a page of the outbox in the order of its key, and return the rows that do not fit their
-- event. The first four columns say how far the page reached. is_placed: the row is one of
-- those that name the event. is_same: the payload is the event's bytes. The message that
-- says that an entity was erased keeps the id, if the stored event has a pseudonym. Row by
-- row, since a join would read a whole table for each page.
WITH page AS (
  SELECT shard, position, event_id
  FROM {schema}.outbox
  WHERE shard >= %(shard)s::int AND (shard, position, event_id)
    > (%(shard)s::int, %(position)s::bigint, %(event_id)s::text::uuid)
  ORDER BY shard, position, event_id
  LIMIT %(rows)s
), reached AS (
  SELECT shard, position, event_id FROM page
  ORDER BY shard DESC, position DESC, event_id DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen FROM page
), compared AS (
  SELECT page.shard, page.position, page.event_id, b.id IS NOT NULL AS is_stored,
    o.subject_type = b.subject_type AND o.subject_id = b.subject_id
      AND o.subject_version = b.subject_version AS is_subject,
    EXISTS (
      SELECT FROM {event_messages} AS m
      WHERE m.shard = page.shard AND m.position = page.position) AS is_placed,
    CASE WHEN o.payload IS NULL THEN b.event_data IS NOT NULL
      ELSE b.event_data IS NULL OR o.payload = b.event_data::text END AS is_same
  FROM page
  CROSS JOIN LATERAL (
    SELECT subject_type, subject_id, subject_version, payload
    FROM {schema}.outbox w
    WHERE w.shard = page.shard AND w.position = page.position AND w.event_id = page.event_id
    LIMIT 1) AS o
  LEFT JOIN LATERAL (
    SELECT id, subject_type, subject_id, subject_version, shard, position, event_data
    FROM {schema}.business_events
    WHERE id = page.event_id
    LIMIT 1) AS b ON true
), found AS (
  SELECT * FROM compared
  WHERE NOT (is_stored AND is_subject AND is_placed AND is_same)
    AND NOT (is_stored AND EXISTS (
      SELECT FROM {schema}.outbox_erasures r WHERE r.event_id = compared.event_id))
)
SELECT bounds.seen, reached.shard AS reached_shard, reached.position AS reached_position,
  reached.event_id AS reached_event,
  found.shard, found.position, found.event_id, found.is_stored, found.is_subject, found.is_placed,
  found.is_same
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON true
ORDER BY found.shard, found.position, found.event_id
