-- A publisher is alive and its broker can be reached: it counts for the shares, for one
-- lease of its own.
INSERT INTO {schema}.outbox_publishers (owner, seen_at, lease_seconds)
VALUES (%(owner)s, clock_timestamp(), %(lease)s::float8)
ON CONFLICT (owner) DO UPDATE SET
  seen_at = EXCLUDED.seen_at, lease_seconds = EXCLUDED.lease_seconds
