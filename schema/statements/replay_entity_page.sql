-- Read a page of an entity's touches in version order, and return the events among them
-- that match the filter. The first two columns say how far the page reached.
WITH page AS (
  SELECT entity_version, event_id FROM {schema}.event_headers
  WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
    AND entity_version > %(after)s AND entity_version <= %(last)s
  ORDER BY entity_version
  LIMIT %(rows)s
), bounds AS (
  SELECT count(*) AS seen, max(entity_version) AS reached FROM page
), found AS (
  SELECT page.entity_version, page.event_id
  FROM page
  JOIN {schema}.business_events b ON b.id = page.event_id
  WHERE (%(event_type)s::text IS NULL OR b.event_type = %(event_type)s::text)
    AND (%(topic)s::text IS NULL OR b.topic = %(topic)s::text)
    AND (%(since)s::text IS NULL OR b.saved_date >= %(since)s::text::timestamptz)
    AND (%(until)s::text IS NULL OR b.saved_date < %(until)s::text::timestamptz)
)
SELECT bounds.seen, bounds.reached, found.entity_version, found.event_id
FROM bounds
LEFT JOIN found ON true
ORDER BY found.entity_version
