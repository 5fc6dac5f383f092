-- The migrations that were applied. `checksum` is the SHA-256 of the file's text, in hex.
CREATE TABLE IF NOT EXISTS {schema}.schema_migrations (
  version int PRIMARY KEY,
  name varchar(255) NOT NULL,
  checksum varchar(64) NOT NULL,
  applied_at timestamptz NOT NULL
)
