-- Return all targets, the default target first. paused_by and the columns after it: of a target
-- that an operator has paused as a whole. events, messages, bare, forgotten: how far its fill is.
SELECT t.name, t.kind, t.first_shard, t.types, t.state, p.reason, p.paused_by, p.paused_at,
  round(extract(epoch FROM clock_timestamp()) - extract(epoch FROM p.paused_at), 3)::float8
    AS paused_seconds, f.events, f.messages, f.bare, f.forgotten
FROM {schema}.outbox_targets t
LEFT JOIN {schema}.outbox_topics p ON p.target = t.name AND p.topic = ''
LEFT JOIN {schema}.outbox_fills f ON f.target = t.name
ORDER BY t.first_shard
