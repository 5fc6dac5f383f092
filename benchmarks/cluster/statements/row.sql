-- Isolation cases: read one row. {shard} is the number of the case.
SELECT position, flag FROM {schema}.doctor_scratch
WHERE shard = {shard} AND position = {position}
  AND event_id = '00000000-0000-0000-0000-000000000000'
