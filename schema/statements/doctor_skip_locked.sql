-- Whether rows that another session locked are left out; the relay does not rely on it.
SELECT count(*) FROM (
  SELECT shard FROM {schema}.doctor_scratch WHERE shard = 0 AND position = {position}
  FOR UPDATE SKIP LOCKED
) AS locked
