-- The lease rows are the record of how many shards there are.
SELECT count(*) FROM {schema}.outbox_leases
