-- Add the headers of an entity's events under another id of the entity; then the old ones go.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
INSERT INTO {schema}.event_headers (entity_type, entity_id, entity_version, event_id, event_name,
  event_type, created_date, saved_date, header_data, header_size)
SELECT h.entity_type, %(new_id)s, h.entity_version, h.event_id, h.event_name, h.event_type,
  h.created_date, h.saved_date, h.header_data, h.header_size
FROM {schema}.event_headers h
WHERE h.entity_type = %(entity_type)s AND h.entity_id = %(entity_id)s
  AND h.entity_version = ANY((SELECT %(versions)s::text::bigint[])::bigint[])
