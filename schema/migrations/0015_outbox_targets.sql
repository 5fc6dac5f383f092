-- The targets. Each gets its own copy of a message, in a range of 1,024 shards that no other target
-- ever uses. The shard of an outbox row is first_shard plus the shard of its entity.
-- - kind: sink or model.
-- - types: an array of the types of subjects that it gets. NULL if it gets all. Every write reads
--   this column, so the CHECK refuses a text that is no array.
-- - state: opening, filling, running or dropped. Unless it is dropped, writes make rows for it.
CREATE TABLE IF NOT EXISTS {schema}.outbox_targets (
  name varchar(64) PRIMARY KEY,
  kind varchar(8) NOT NULL,
  first_shard int NOT NULL,
  types text,
  state varchar(8) NOT NULL,
  CHECK (types ~ '^[{{]"([^"\\]|\\.)+"(,"([^"\\]|\\.)+")*[}}]$')
)
