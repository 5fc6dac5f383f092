-- Delete an entity that stands under another id now, if its version is still the one that was read.
DELETE FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s AND version = %(version)s
