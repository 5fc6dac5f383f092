-- Return the next events of an entity in version order, from one key range of headers.
SELECT entity_version, event_id FROM {schema}.event_headers
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
  AND entity_version > %(after)s AND entity_version <= %(last)s
ORDER BY entity_version
LIMIT %(rows)s
