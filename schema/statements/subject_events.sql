-- Return the events that touched an entity before a version of it, the latest first, from one key
-- range.
SELECT entity_version AS version, event_id
FROM {schema}.event_headers
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
  AND entity_version < %(before)s
ORDER BY entity_version DESC
LIMIT {rows}
