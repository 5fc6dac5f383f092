-- Fix the snapshot of the transaction, and return whether the row exists.
SELECT count(*) FROM {schema}.doctor_scratch WHERE shard = 0 AND position = {position}
