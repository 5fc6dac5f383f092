-- Isolation cases: delete by a predicate that no key answers.
DELETE FROM {schema}.doctor_scratch WHERE shard = {shard} AND flag = {flag}
