-- How old the backlog is, for those who may not read what it says.
CREATE OR REPLACE VIEW {schema}.outbox_backlog AS
  SELECT shard, position, created_at FROM {schema}.outbox
