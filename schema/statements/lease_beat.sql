-- Keep leases for longer, announce their publisher, and return every lease and every
-- announced publisher of its target as they were before: `lease_renew`, `publisher_announce` and
-- `lease_list` in one statement. renewed: whether this statement has renewed the lease.
WITH renewed AS (
  UPDATE {schema}.outbox_leases l
  SET expires_at = clock_timestamp() + %(lease)s::float8 * interval '1 second'
  FROM unnest(%(shards)s::text::int[], %(epochs)s::text::bigint[]) AS k(shard, epoch)
  WHERE l.shard = k.shard AND l.epoch = k.epoch AND l.owner = %(owner)s
  RETURNING l.shard
), announced AS (
  INSERT INTO {schema}.outbox_publishers (owner, seen_at, lease_seconds, paused, target)
  VALUES (%(owner)s, clock_timestamp(), %(lease)s::float8, %(paused)s::text, %(target)s)
  ON CONFLICT (owner) DO UPDATE SET
    seen_at = EXCLUDED.seen_at, lease_seconds = EXCLUDED.lease_seconds,
    paused = EXCLUDED.paused, waiting_since = NULL
)
SELECT l.shard, l.owner, l.epoch,
  (extract(epoch FROM l.expires_at) - extract(epoch FROM clock_timestamp()))::float8
    AS expires_in,
  extract(epoch FROM l.expires_at)::float8 AS expires_at,
  NULL::float8 AS seen_at, NULL::float8 AS age, NULL::float8 AS lease_seconds,
  NULL::boolean AS waits, r.shard IS NOT NULL AS renewed
FROM {schema}.outbox_targets t
JOIN {schema}.outbox_leases l ON l.shard BETWEEN t.first_shard AND t.first_shard + 1023
LEFT JOIN renewed r ON r.shard = l.shard
WHERE t.name = %(target)s
UNION ALL
SELECT NULL, p.owner, NULL, NULL, NULL, extract(epoch FROM p.seen_at)::float8,
  (extract(epoch FROM clock_timestamp()) - extract(epoch FROM p.seen_at))::float8,
  p.lease_seconds, p.waiting_since IS NOT NULL, false
FROM {schema}.outbox_publishers p
WHERE p.target = %(target)s
