-- Fixes a transaction's snapshot, and tells whether a row is there.
SELECT count(*) FROM {schema}.doctor_scratch WHERE shard = 0 AND position = {position}
