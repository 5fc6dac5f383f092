-- Return the subject of the first message of a shard, how many of the first {limit} messages there are
-- of it, and how many are looked at.
SELECT f.subject_type, f.subject_id,
  count(*) FILTER (WHERE o.subject_type = f.subject_type AND o.subject_id = f.subject_id) AS messages,
  count(*) AS looked
FROM (SELECT subject_type, subject_id FROM {schema}.outbox
  WHERE shard = %(shard)s ORDER BY position LIMIT 1) AS f
CROSS JOIN (SELECT subject_type, subject_id FROM {schema}.outbox
  WHERE shard = %(shard)s ORDER BY position LIMIT {limit}) AS o
GROUP BY f.subject_type, f.subject_id
