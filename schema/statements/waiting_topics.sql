-- Return the topics of the waiting messages of a target: the number of messages, whether the topic
-- is paused, and how many messages of all its topics are blocked. Counting stops one above
-- {limit}, to stay cheap.
WITH target AS (
  SELECT first_shard FROM {schema}.outbox_targets WHERE name = %(target)s
)
SELECT o.topic, count(*) AS messages,
  EXISTS (
    SELECT FROM {schema}.outbox_topics t
    WHERE t.target = %(target)s AND t.topic = o.topic) AS is_paused,
  (SELECT count(*) FROM {schema}.outbox_failures f, target
   WHERE f.retry_at = 'infinity'
     AND f.shard BETWEEN target.first_shard AND target.first_shard + 1023) AS blocked
FROM (
  SELECT q.topic FROM target
  JOIN {schema}.outbox q ON q.shard BETWEEN target.first_shard AND target.first_shard + 1023
  LIMIT {limit} + 1) AS o
GROUP BY o.topic
ORDER BY count(*) DESC, o.topic
