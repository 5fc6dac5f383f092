-- Add an entity under another id, if its version is still the one that was read.
INSERT INTO {schema}.entities (entity_type, entity_id, version, shard, position, previous_position,
  entity_data, event_id, created_at, updated_at)
SELECT entity_type, %(new_id)s, version, shard, position, previous_position, %(state)s::text::json,
  event_id, created_at, updated_at
FROM {schema}.entities
WHERE entity_type = %(entity_type)s AND entity_id = %(entity_id)s AND version = %(version)s
