-- Isolation cases: read all rows of a case.
SELECT position, flag FROM {schema}.doctor_scratch WHERE shard = {shard} ORDER BY position
