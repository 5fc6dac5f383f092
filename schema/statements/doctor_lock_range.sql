-- FOR UPDATE on part of a key; the documentation asks for the whole key.
SELECT count(*) FROM (
  SELECT shard FROM {schema}.doctor_scratch WHERE shard = 0 AND position = {position} FOR UPDATE
) AS locked
