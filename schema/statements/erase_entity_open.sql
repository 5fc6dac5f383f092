-- Open an entity under its other id: all its headers are there. Those that are not have been
-- forgotten, or were moved to another id before. Not if the old id was closed again meanwhile.
UPDATE {schema}.entities o SET moved_version = (
  SELECT nullif(min(h.entity_version), 1) - 1 FROM {schema}.event_headers h
  WHERE h.entity_type = %(entity_type)s AND h.entity_id = %(new_id)s)
WHERE o.entity_type = %(entity_type)s AND o.entity_id = %(new_id)s AND EXISTS (
  SELECT FROM {schema}.entities e
  WHERE e.entity_type = %(entity_type)s AND e.entity_id = %(entity_id)s
    AND e.moved_version = %(version)s)
