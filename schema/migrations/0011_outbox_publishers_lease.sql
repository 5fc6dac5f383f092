-- How many seconds a publisher's leases last, as it was told by `--lease`: it counts as
-- alive for so long after it was seen. NULL for a version that did not write it: 10.
ALTER TABLE {schema}.outbox_publishers ADD COLUMN IF NOT EXISTS lease_seconds float8
