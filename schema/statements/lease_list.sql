-- Every lease, and every publisher that announced itself, from one snapshot and with
-- times by one clock. A lease: for how many seconds yet; a publisher (no shard): when
-- it was seen, in seconds since 1970, how many seconds ago that was, and how long its
-- leases last.
SELECT shard, owner, epoch,
  (extract(epoch FROM expires_at) - extract(epoch FROM clock_timestamp()))::float8 AS expires_in,
  NULL::float8 AS seen_at, NULL::float8 AS age, NULL::float8 AS lease_seconds
FROM {schema}.outbox_leases
UNION ALL
SELECT NULL, owner, NULL, NULL, extract(epoch FROM seen_at)::float8,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM seen_at))::float8,
  lease_seconds
FROM {schema}.outbox_publishers
