-- The form in which entities are written: insert, or update on conflict.
INSERT INTO {schema}.doctor_scratch (shard, position, event_id)
VALUES (0, {position}, '00000000-0000-0000-0000-000000000000')
ON CONFLICT (shard, position, event_id) DO UPDATE SET doc = EXCLUDED.doc
