-- Who gets a copy of each message: a target is a range of 1,024 shards from first_shard on, which
-- is never used again. The shard of a row is first_shard plus the shard of its entity.
-- kind: sink or model. types: an array of the types of subjects that it gets; NULL: all. Each write
-- reads it, so the CHECK refuses a text that is no array.
-- state: opening, filling, running or dropped. Rows are inserted unless it is dropped.
CREATE TABLE IF NOT EXISTS {schema}.outbox_targets (
  name varchar(64) PRIMARY KEY,
  kind varchar(8) NOT NULL,
  first_shard int NOT NULL,
  types text,
  state varchar(8) NOT NULL,
  CHECK (types ~ '^[{{]"([^"\\]|\\.)+"(,"([^"\\]|\\.)+")*[}}]$')
)
