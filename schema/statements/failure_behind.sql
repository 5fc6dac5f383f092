-- Return whether the message of a failure is behind another one: the previous message of its
-- subject still waits in the outbox.
SELECT EXISTS (
  SELECT FROM {schema}.outbox o
  JOIN {schema}.outbox p ON p.shard = o.shard AND p.position = o.previous_position
    AND p.subject_type = o.subject_type AND p.subject_id = o.subject_id
  WHERE o.shard = %(shard)s AND o.position = %(position)s AND o.event_id = %(event_id)s
    AND o.previous_position > 0)
