-- Return whether an entity has headers under a pseudonym.
SELECT EXISTS (
  SELECT FROM {schema}.event_headers
  WHERE entity_type = %(entity_type)s AND entity_id = %(new_id)s) AS is_used
