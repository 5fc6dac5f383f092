-- Return the failures with the most attempts, and the numbers of failures and of blocked
-- ones. It reads at most {limit} + 1 rows. seconds: until the next attempt, or infinity
-- if blocked. `retry_at - clock_timestamp()` fails for infinity before PostgreSQL 17.
SELECT f.event_id, f.shard, f.position, f.attempts, f.last_error,
  (extract(epoch FROM f.retry_at) - extract(epoch FROM clock_timestamp()))::float8 AS seconds,
  count(*) OVER () AS failures,
  count(*) FILTER (WHERE f.retry_at = 'infinity') OVER () AS blocked
FROM (SELECT * FROM {schema}.outbox_failures LIMIT {limit} + 1) AS f
ORDER BY f.attempts DESC, f.position
LIMIT {shown}
