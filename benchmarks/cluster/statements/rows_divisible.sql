-- Isolation cases: read by a predicate that no key serves.
SELECT position, flag FROM {schema}.doctor_scratch
WHERE shard = {shard} AND flag % {divisor} = 0 ORDER BY position
