-- The age of the backlog, for roles that may not read messages.
CREATE OR REPLACE VIEW {schema}.outbox_backlog AS
  SELECT shard, position, created_at FROM {schema}.outbox
