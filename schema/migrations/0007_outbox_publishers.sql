-- The publishers that are alive.
-- - owner: one run of one process.
-- - lease_seconds: how long its leases last (`--lease`). It counts as alive for that long after it
--   was seen.
-- - paused: the topics that it has paused itself because the broker refused them, a JSON array of
--   at most 50 names. If there are more, their number is its last element.
-- - target: the target whose messages it relays.
-- - waiting_since: since when it waits for its broker, NULL while it reaches it. A publisher that waits
--   gets no share of the shards.
CREATE TABLE IF NOT EXISTS {schema}.outbox_publishers (
  owner varchar(128) PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  lease_seconds float8 NOT NULL,
  paused text NOT NULL,
  target varchar(64) NOT NULL,
  waiting_since timestamptz
)
