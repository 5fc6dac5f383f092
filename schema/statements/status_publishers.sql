-- Return the announced publishers: how many seconds ago each was last seen, the duration of its
-- leases, and how many seconds it has waited for its broker (null: it reaches it). paused: a JSON
-- array of the topics that it has paused by itself, and last the number of those without a name.
SELECT owner,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM seen_at))::float8 AS seen,
  lease_seconds, paused, target,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM waiting_since))::float8 AS waiting
FROM {schema}.outbox_publishers ORDER BY seen_at DESC LIMIT {shown}
