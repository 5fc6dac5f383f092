-- Return the current state of an entity.
SELECT version, shard, entity_data::text, event_id, created_at, updated_at
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s
