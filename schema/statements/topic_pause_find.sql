-- Return the pause of a topic of a target, as topic_page does.
SELECT topic, reason, paused_by, paused_at, nullif(target, 'default') AS target,
  round(extract(epoch FROM clock_timestamp()) - extract(epoch FROM paused_at), 3)::float8
    AS paused_seconds
FROM {schema}.outbox_topics
WHERE target = %(target)s AND topic = %(topic)s
