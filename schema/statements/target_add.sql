-- Add a target with the range of shards after all others. One that exists stays as it is.
INSERT INTO {schema}.outbox_targets (name, kind, first_shard, types, state)
SELECT %(name)s, %(kind)s, max(first_shard) + 1024, %(types)s::text, 'opening'
FROM {schema}.outbox_targets
ON CONFLICT (name) DO NOTHING
