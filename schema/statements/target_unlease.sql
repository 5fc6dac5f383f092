-- Delete the leases of a dropped target. Those of the default target say how many shards there are.
DELETE FROM {schema}.outbox_leases l
USING {schema}.outbox_targets t
WHERE t.name = %(name)s AND t.name <> 'default'
  AND l.shard BETWEEN t.first_shard AND t.first_shard + 1023
