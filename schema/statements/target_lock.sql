-- Change nothing in the row of the default target. Of two transactions that add shards, or a target
-- that is relayed, the second waits for the first on PostgreSQL, and one fails on DSQL.
UPDATE {schema}.outbox_targets SET state = state WHERE name = 'default'
