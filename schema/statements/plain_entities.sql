-- The plain form of a write, 1 of 5: the entities, sorted by key. The later statements
-- read the versions and positions that this one assigned. See event_write_batch.sql.
-- Position 0 means that the entity is the subject of no event in this batch.
INSERT INTO {schema}.entities AS e (entity_type, entity_id, version, shard, position,
  previous_position, entity_data, event_id, created_at, updated_at)
SELECT entity_type, entity_id, touches, shard,
  CASE WHEN subjects = 0 THEN 0
    ELSE (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + subjects - 1 END,
  0, attributes::json, event_id, clock_timestamp(), clock_timestamp()
FROM unnest(%(entity_type)s::text::text[], %(entity_id)s::text::text[],
    %(touches)s::text::bigint[], %(subjects)s::text::bigint[], %(shard)s::text::int[],
    %(attributes)s::text::text[], %(entity_event)s::text::uuid[])
  AS t(entity_type, entity_id, touches, subjects, shard, attributes, event_id)
ON CONFLICT (entity_type, entity_id) DO UPDATE SET
  version = e.version + EXCLUDED.version,
  position = CASE WHEN EXCLUDED.position = 0 THEN e.position
    ELSE greatest(EXCLUDED.position, e.position + EXCLUDED.version) END,
  previous_position = CASE WHEN EXCLUDED.position = 0 THEN e.previous_position
    ELSE e.position END,
  entity_data = EXCLUDED.entity_data,
  event_id = EXCLUDED.event_id,
  updated_at = EXCLUDED.updated_at
