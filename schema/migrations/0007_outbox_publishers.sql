-- The publishers alive; owner is one incarnation of one process. lease_seconds: how long its
-- leases last, as `--lease` says; it counts as alive for so long after it was seen. paused: the
-- topics that it has paused by itself, because the place they go to takes no messages: a JSON
-- array of their names. target: whose messages it relays.
CREATE TABLE IF NOT EXISTS {schema}.outbox_publishers (
  owner varchar(128) PRIMARY KEY,
  seen_at timestamptz NOT NULL,
  lease_seconds float8 NOT NULL,
  paused text NOT NULL,
  target varchar(64) NOT NULL
)
