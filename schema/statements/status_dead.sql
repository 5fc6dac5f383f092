-- Return the number of dead letters, and how many seconds ago the first of them died. Counting stops
-- one above {limit}.
SELECT (SELECT count(*) FROM (SELECT 1 FROM {schema}.dead_letters LIMIT {limit} + 1) AS bounded),
  (extract(epoch FROM clock_timestamp())
    - extract(epoch FROM (SELECT min(died_at) FROM {schema}.dead_letters)))::float8 AS seconds
