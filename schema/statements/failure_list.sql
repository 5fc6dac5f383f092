-- What waits after a failure, with its subject. seconds: until the next attempt;
-- infinity when blocked; two epochs, as PostgreSQL before 17 subtracts no infinity.
SELECT f.shard, f.position, f.event_id, f.attempts, o.subject_type, o.subject_id,
  (extract(epoch FROM f.retry_at) - extract(epoch FROM clock_timestamp()))::float8 AS seconds
FROM {schema}.outbox_failures f
JOIN {schema}.outbox o
  ON o.shard = f.shard AND o.position = f.position AND o.event_id = f.event_id
