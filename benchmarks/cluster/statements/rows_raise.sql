-- Isolation cases: change every row of a case.
UPDATE {schema}.doctor_scratch SET flag = flag + 10 WHERE shard = {shard}
