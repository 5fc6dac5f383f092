-- The publishers that announced themselves, how many seconds ago each was seen last, and
-- how long its leases last.
SELECT owner,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM seen_at))::float8 AS seen,
  lease_seconds
FROM {schema}.outbox_publishers ORDER BY seen_at DESC LIMIT {shown}
