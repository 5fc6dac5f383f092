-- Announce that a publisher is alive. For the duration of one lease it gets a share of the
-- shards of its target, unless it waits for its broker (waits).
INSERT INTO {schema}.outbox_publishers AS p
  (owner, seen_at, lease_seconds, paused, target, waiting_since)
VALUES (%(owner)s, clock_timestamp(), %(lease)s::float8, %(paused)s::text, %(target)s,
  CASE WHEN %(waits)s THEN clock_timestamp() END)
ON CONFLICT (owner) DO UPDATE SET
  seen_at = EXCLUDED.seen_at, lease_seconds = EXCLUDED.lease_seconds,
  paused = EXCLUDED.paused,
  waiting_since = CASE WHEN %(waits)s THEN coalesce(p.waiting_since, EXCLUDED.waiting_since) END
