-- Add an entity under another id, or let it follow there, after the event that closed its old id. Its
-- headers come later.
INSERT INTO {schema}.entities AS o (entity_type, entity_id, version, shard, position,
  previous_position, entity_data, event_id, created_at, updated_at, moved_version)
SELECT e.entity_type, %(new_id)s, e.version, e.shard, e.position, e.previous_position,
  %(state)s::text::json, e.event_id, e.created_at, e.updated_at, e.version
FROM {schema}.entities e
WHERE e.entity_type = %(entity_type)s AND e.entity_id = %(entity_id)s
  AND e.version = %(version)s
ON CONFLICT (entity_type, entity_id) DO UPDATE SET
  version = EXCLUDED.version, position = EXCLUDED.position,
  previous_position = EXCLUDED.previous_position, entity_data = EXCLUDED.entity_data,
  event_id = EXCLUDED.event_id, updated_at = EXCLUDED.updated_at,
  moved_version = EXCLUDED.moved_version
