-- The target of all that names no other. It has the first range of shards.
INSERT INTO {schema}.outbox_targets (name, kind, first_shard, types, state)
VALUES ('default', 'sink', 0, NULL, 'running')
ON CONFLICT (name) DO NOTHING
