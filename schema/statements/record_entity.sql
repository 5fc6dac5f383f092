-- Return the current state of an entity.
SELECT entity_type, entity_id, version, shard, entity_data::text AS state, event_id, created_at, updated_at
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
