-- Add lease rows, as many as one transaction may: one per shard of each target that is relayed.
-- Those that exist keep owner and epoch. Run it until it adds none. It changes the row of the
-- default target, as the statement that adds a target does: the second of two waits for the first
-- on PostgreSQL, and then finds in its next run what the first has added; on DSQL one fails. The
-- rows of the default target come last: they tell writers how many shards there are.
WITH locked AS (
  UPDATE {schema}.outbox_targets SET state = state WHERE name = 'default'
)
INSERT INTO {schema}.outbox_leases (shard, owner, epoch, expires_at)
SELECT t.first_shard + slot, NULL, 0, NULL
FROM {schema}.outbox_targets AS t CROSS JOIN generate_series(0, {shards} - 1) AS slot
WHERE (t.state = 'running' OR t.name = 'default') AND NOT EXISTS (
  SELECT FROM {schema}.outbox_leases AS l WHERE l.shard = t.first_shard + slot)
ORDER BY t.name = 'default', slot
LIMIT 2000
ON CONFLICT (shard) DO NOTHING
