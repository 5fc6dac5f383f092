-- Return the last version of an entity.
SELECT version FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
