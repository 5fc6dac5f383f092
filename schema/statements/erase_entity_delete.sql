-- Delete an entity that is under another id now, unless later events have touched it.
DELETE FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s AND version = %(version)s
