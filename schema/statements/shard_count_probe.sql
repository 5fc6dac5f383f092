-- shard_count, asked so that a database without data-modifying CTEs refuses: then a
-- write takes its plain form. It changes nothing, and needs no right that a write
-- does not need.
WITH probe AS (
  UPDATE {schema}.entities SET version = version WHERE false RETURNING version
)
SELECT count(*) FROM {schema}.outbox_leases
