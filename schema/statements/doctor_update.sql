-- Change one column of the row of `doctor_insert`.
UPDATE {schema}.doctor_scratch SET doc = '1'
WHERE shard = 0 AND position = {position} AND event_id = '00000000-0000-0000-0000-000000000000'
