-- Read a page of touches in the order of their key, and return the events among them that
-- match the filter. Each event is returned for its subject, not for other entities that it
-- touches; so the events of a subject come in the order of its versions. There is no index
-- on type, topic or time, so all pages together read every touch. The first five columns
-- say how far the page reached, and when the period ends: without an end, at this time.
WITH page AS (
  SELECT entity_type, entity_id, entity_version, event_id
  FROM {schema}.event_headers
  WHERE entity_type >= %(entity_type)s::text AND (entity_type, entity_id, entity_version)
    > (%(entity_type)s::text, %(entity_id)s::text, %(after)s::bigint)
  ORDER BY entity_type, entity_id, entity_version
  LIMIT %(rows)s
), reached AS (
  SELECT entity_type, entity_id, entity_version FROM page
  ORDER BY entity_type DESC, entity_id DESC, entity_version DESC
  LIMIT 1
), bounds AS (
  SELECT count(*) AS seen, coalesce(%(until)s::text::timestamptz, clock_timestamp()) AS until
  FROM page
), found AS (
  SELECT page.entity_type, page.entity_id, page.entity_version, page.event_id, b.saved_date
  FROM page
  JOIN {schema}.business_events b ON b.id = page.event_id
    AND b.subject_type = page.entity_type AND b.subject_id = page.entity_id
  WHERE (%(event_type)s::text IS NULL OR b.event_type = %(event_type)s::text)
    AND (%(topic)s::text IS NULL OR b.topic = %(topic)s::text)
    AND (%(since)s::text IS NULL OR b.saved_date >= %(since)s::text::timestamptz)
)
SELECT bounds.seen, reached.entity_type AS reached_type, reached.entity_id AS reached_id,
  reached.entity_version AS reached_version, bounds.until,
  found.entity_type, found.entity_id, found.entity_version, found.event_id
FROM bounds
LEFT JOIN reached ON true
LEFT JOIN found ON found.saved_date < bounds.until
ORDER BY found.entity_type, found.entity_id, found.entity_version
