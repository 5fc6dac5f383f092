-- Return the topics of waiting messages: the number of messages, whether the topic is
-- paused, and how many messages of all topics are blocked. Counting stops one above
-- {limit}, to stay cheap.
SELECT o.topic, count(*) AS messages, bool_or(t.topic IS NOT NULL) AS is_paused,
  (SELECT count(*) FROM {schema}.outbox_failures f WHERE f.retry_at = 'infinity') AS blocked
FROM (SELECT topic FROM {schema}.outbox LIMIT {limit} + 1) AS o
LEFT JOIN {schema}.outbox_topics t ON t.topic = o.topic
GROUP BY o.topic
ORDER BY count(*) DESC, o.topic
