-- Delete the first rows of a target up to a position. Of each subject they are the first ones: its
-- rows become visible in the order of their positions, and this reads them from the first on.
DELETE FROM {schema}.outbox o
USING (
  SELECT q.shard, q.position, q.event_id FROM {schema}.outbox q
  WHERE q.shard BETWEEN %(first)s AND %(first)s + 1023 AND q.position <= %(position)s
  ORDER BY q.shard, q.position, q.event_id
  LIMIT 1000) AS k
WHERE o.shard = k.shard AND o.position = k.position AND o.event_id = k.event_id
