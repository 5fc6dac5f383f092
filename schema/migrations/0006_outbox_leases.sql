-- One publisher's right to relay one shard for a while. One row per shard: the
-- record of how many shards there are. epoch rises with every new owner.
CREATE TABLE IF NOT EXISTS {schema}.outbox_leases (
  shard int PRIMARY KEY,
  owner varchar(128),
  epoch bigint NOT NULL,
  expires_at timestamptz
)
