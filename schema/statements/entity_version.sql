-- An entity's last version.
SELECT version FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
