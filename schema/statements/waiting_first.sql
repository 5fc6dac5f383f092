-- Return the key of the message for which a waiting message waits: the first of its subject that
-- is still in the outbox. It steps back from message to message by key, at most {steps} times.
WITH RECURSIVE before AS (
  SELECT o.shard, o.position, o.event_id, o.previous_position, o.subject_type, o.subject_id,
    0 AS step
  FROM {schema}.outbox o
  WHERE o.shard = %(shard)s AND o.position = %(position)s AND o.event_id = %(event_id)s
  UNION
  SELECT p.shard, p.position, p.event_id, p.previous_position, p.subject_type, p.subject_id,
    b.step + 1
  FROM before b
  JOIN {schema}.outbox p ON p.shard = b.shard AND p.position = b.previous_position
    AND p.subject_type = b.subject_type AND p.subject_id = b.subject_id
  WHERE b.previous_position > 0 AND b.step < {steps}
)
SELECT step, event_id, position FROM before WHERE step > 0 ORDER BY step DESC LIMIT 1
