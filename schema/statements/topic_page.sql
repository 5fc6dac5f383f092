-- Return the paused topics of a target in the order of their names, with the role that paused each.
-- after null: from the first topic on.
SELECT topic, reason, paused_by, paused_at, nullif(target, 'default') AS target,
  round(extract(epoch FROM clock_timestamp()) - extract(epoch FROM paused_at), 3)::float8
    AS paused_seconds
FROM {schema}.outbox_topics
WHERE target = %(target)s AND topic > coalesce(%(after)s::text, '')
ORDER BY topic
LIMIT %(rows)s
