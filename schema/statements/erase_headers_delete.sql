-- Delete the headers of an entity's events, which stand under another id now.
-- The array is in a subquery: PostgreSQL would cast it again for each row of a table that it
-- reads as a whole.
DELETE FROM {schema}.event_headers
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
  AND entity_version = ANY((SELECT %(versions)s::text::bigint[])::bigint[])
