-- Return all targets, the default target first. events, messages, forgotten: how far its fill is.
SELECT t.name, t.kind, t.first_shard, t.types, t.state, f.events, f.messages, f.forgotten
FROM {schema}.outbox_targets t
LEFT JOIN {schema}.outbox_fills f ON f.target = t.name
ORDER BY t.first_shard
