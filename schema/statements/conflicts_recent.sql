-- Return the newest conflict reports of writers, and how many seconds ago each was stored.
SELECT r.age, r.report
FROM (
  SELECT c.report::text AS report,
    (extract(epoch FROM clock_timestamp()) - extract(epoch FROM c.seen_at))::float8 AS age
  FROM {schema}.outbox_conflicts c) AS r
WHERE r.age <= %(seconds)s::float8
ORDER BY r.age LIMIT {rows}
