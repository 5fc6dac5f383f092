-- Close the id of an entity that gets another one: the events up to this version are under the other
-- id, or go there. Later ones have the old id, and stay.
UPDATE {schema}.entities SET moved_version = version
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s AND version = %(version)s
