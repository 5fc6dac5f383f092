-- The publishers alive; owner is one incarnation of one process.
CREATE TABLE IF NOT EXISTS {schema}.outbox_publishers (
  owner varchar(128) PRIMARY KEY,
  seen_at timestamptz NOT NULL
)
