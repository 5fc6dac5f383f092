-- The plain form of a write, 3 of 5: one header per touch.
INSERT INTO {schema}.event_headers (entity_type, entity_id, entity_version, event_id,
  event_name, event_type, created_date, saved_date, header_data, header_size)
WITH event AS (
  SELECT t.ordinal, t.header, b.id, b.event_name, b.event_type, b.created_date,
    b.subject_type, b.subject_id, b.subject_version
  FROM unnest(%(subject_ordinal)s::text::int[], %(id)s::text::uuid[],
      %(subject_header)s::text::text[]) AS t(ordinal, id, header)
  LEFT JOIN {schema}.business_events AS b ON b.id = t.id
), further AS MATERIALIZED (  -- joined to events first: those have a good estimate of rows
  SELECT t.entity_type, t.entity_id, t.back, t.header, event.id, event.event_name,
    event.event_type, event.created_date
  FROM unnest(%(further_event)s::text::int[], %(further_type)s::text::text[],
      %(further_id)s::text::text[], %(further_back)s::text::bigint[],
      %(further_header)s::text::text[]) AS t(event, entity_type, entity_id, back, header)
  JOIN event ON event.ordinal = t.event
)
SELECT subject_type, subject_id, subject_version, id, event_name, event_type, created_date,
  clock_timestamp(), header::json, octet_length(header)
FROM event
UNION ALL
SELECT e.entity_type, e.entity_id, e.version - t.back, t.id, t.event_name, t.event_type,
  t.created_date, clock_timestamp(), t.header::json, octet_length(t.header)
FROM further AS t
JOIN {schema}.entities AS e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
