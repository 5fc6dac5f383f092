-- Whether a write may feed another in one statement, which the fast form of a write needs.
WITH one AS (
  INSERT INTO {schema}.doctor_scratch (shard, position, event_id)
  VALUES (0, {position}, gen_random_uuid()) RETURNING shard, position, event_id
), two AS (
  INSERT INTO {schema}.doctor_scratch (shard, position, event_id)
  SELECT shard + 1, position, event_id FROM one RETURNING shard
)
SELECT (SELECT shard FROM one), (SELECT shard FROM two)
