-- Delete dead letters of a dropped target, at most 1,000 at once.
DELETE FROM {schema}.dead_letters d
USING (
  SELECT q.event_id, q.died_at FROM {schema}.dead_letters q
  WHERE q.shard BETWEEN %(first)s AND %(first)s + 1023
  LIMIT 1000) AS k
WHERE d.event_id = k.event_id AND d.died_at = k.died_at
