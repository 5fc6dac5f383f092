-- The failures with the most attempts, and how many failures there are and are
-- blocked; it looks at {limit} + 1 rows at most. seconds: until the next attempt,
-- infinity when blocked. Not `retry_at - clock_timestamp()`: before PostgreSQL 17
-- that fails for infinity.
SELECT f.event_id, f.shard, f.position, f.attempts, f.last_error,
  (extract(epoch FROM f.retry_at) - extract(epoch FROM clock_timestamp()))::float8 AS seconds,
  count(*) OVER () AS failures,
  count(*) FILTER (WHERE f.retry_at = 'infinity') OVER () AS blocked
FROM (SELECT * FROM {schema}.outbox_failures LIMIT {limit} + 1) AS f
ORDER BY f.attempts DESC, f.position
LIMIT {shown}
