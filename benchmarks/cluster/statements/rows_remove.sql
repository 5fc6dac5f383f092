-- Isolation cases: delete by a predicate that no key serves.
DELETE FROM {schema}.doctor_scratch WHERE shard = {shard} AND flag = {flag}
