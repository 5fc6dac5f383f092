-- Delete the headers of an entity's events, which stand under another id now.
DELETE FROM {schema}.event_headers
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
  AND entity_version = ANY(%(versions)s::text::bigint[])
