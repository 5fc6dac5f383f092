-- Return every lease and every announced publisher of a target, from one snapshot and by one clock.
-- A lease: the seconds until it ends, and that moment in
-- seconds since 1970. A publisher (shard is null): when it was last seen
-- in seconds since 1970, how many seconds ago that was, the duration of its leases, and whether it
-- waits for its broker.
SELECT l.shard, l.owner, l.epoch,
  (extract(epoch FROM l.expires_at) - extract(epoch FROM clock_timestamp()))::float8 AS expires_in,
  extract(epoch FROM l.expires_at)::float8 AS expires_at,
  NULL::float8 AS seen_at, NULL::float8 AS age, NULL::float8 AS lease_seconds,
  NULL::boolean AS waits
FROM {schema}.outbox_targets t
JOIN {schema}.outbox_leases l ON l.shard BETWEEN t.first_shard AND t.first_shard + 1023
WHERE t.name = %(target)s
UNION ALL
SELECT NULL, owner, NULL, NULL, NULL, extract(epoch FROM seen_at)::float8,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM seen_at))::float8,
  lease_seconds, waiting_since IS NOT NULL
FROM {schema}.outbox_publishers
WHERE target = %(target)s
