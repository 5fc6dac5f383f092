-- One lease row per shard of a target; there are as many shards as lease rows of the default target.
INSERT INTO {schema}.outbox_leases (shard, owner, epoch, expires_at)
SELECT t.first_shard + l.shard, NULL, 0, NULL
FROM {schema}.outbox_targets t
JOIN {schema}.outbox_leases l ON l.shard BETWEEN 0 AND 1023
WHERE t.name = %(name)s
ON CONFLICT (shard) DO NOTHING
