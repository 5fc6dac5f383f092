-- One row per shard: which publisher may relay it, and until when. The number of shards is the
-- number of rows below 1,024, the range of the default target. Each running target has as many.
-- - epoch: rises with every new owner.
CREATE TABLE IF NOT EXISTS {schema}.outbox_leases (
  shard int PRIMARY KEY,
  owner varchar(128),
  epoch bigint NOT NULL,
  expires_at timestamptz
)
