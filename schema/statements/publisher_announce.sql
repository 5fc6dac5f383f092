-- Announce that a publisher is alive and reaches its broker. For the duration of one
-- lease it gets a share of the shards of its target.
INSERT INTO {schema}.outbox_publishers (owner, seen_at, lease_seconds, paused, target)
VALUES (%(owner)s, clock_timestamp(), %(lease)s::float8, %(paused)s::text, %(target)s)
ON CONFLICT (owner) DO UPDATE SET
  seen_at = EXCLUDED.seen_at, lease_seconds = EXCLUDED.lease_seconds,
  paused = EXCLUDED.paused
