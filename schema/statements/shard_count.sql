-- Return the number of shards, which the lease rows record.
SELECT count(*) FROM {schema}.outbox_leases
