-- Return the last version of an entity, and its attributes after the event of that version.
SELECT version, entity_data::text FROM {schema}.entities
WHERE entity_type = %(entity_type)s::text AND entity_id = %(entity_id)s::text
