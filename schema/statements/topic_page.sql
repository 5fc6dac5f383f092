-- Return the paused topics in the order of their names, with the role that paused each.
-- seconds: since then. after null: from the first topic on.
SELECT topic, reason, paused_by, paused_at,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM paused_at))::float8 AS seconds
FROM {schema}.outbox_topics
WHERE %(after)s::text IS NULL OR topic > %(after)s::text
ORDER BY topic
LIMIT %(rows)s
