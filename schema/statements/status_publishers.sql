-- Return the announced publishers: how many seconds ago each was last seen, and the
-- duration of its leases. paused: a JSON array of the topics that it has paused by itself.
SELECT owner,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM seen_at))::float8 AS seen,
  lease_seconds, paused, target
FROM {schema}.outbox_publishers ORDER BY seen_at DESC LIMIT {shown}
