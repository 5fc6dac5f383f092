-- Return the number of shards, which the lease rows of the default target record.
SELECT count(*) FROM {schema}.outbox_leases WHERE shard < 1024
