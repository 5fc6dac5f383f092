-- Return the number of dead letters, how many seconds ago the first of them died, and its error.
-- Counting stops one above {limit}.
SELECT (SELECT count(*) FROM (SELECT 1 FROM {schema}.dead_letters LIMIT {limit} + 1) AS bounded),
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM f.died_at))::float8 AS seconds, f.error
FROM (VALUES (1)) AS one(row)
LEFT JOIN (SELECT died_at, error FROM {schema}.dead_letters ORDER BY died_at, event_id LIMIT 1) AS f
  ON true
