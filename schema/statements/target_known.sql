-- Return all targets, the default target first.
SELECT name, kind, first_shard, types, state FROM {schema}.outbox_targets ORDER BY first_shard
