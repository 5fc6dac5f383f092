-- The plain form of a write, 3 of 5: one header per touch.
INSERT INTO {schema}.event_headers (entity_type, entity_id, entity_version, event_id,
  event_name, event_type, created_date, saved_date, header_data)
SELECT e.entity_type, e.entity_id, e.version - t.back, b.id, b.event_name, b.event_type,
  b.created_date, clock_timestamp(), t.header::json
FROM unnest(%(touch_event)s::text::uuid[], %(touch_type)s::text::text[],
    %(touch_entity)s::text::text[], %(back)s::text::bigint[], %(header)s::text::text[])
  AS t(event_id, entity_type, entity_id, back, header)
JOIN {schema}.entities AS e ON e.entity_type = t.entity_type AND e.entity_id = t.entity_id
JOIN {schema}.business_events AS b ON b.id = t.event_id
