-- Isolation cases: change one row.
UPDATE {schema}.doctor_scratch SET flag = {flag}
WHERE shard = {shard} AND position = {position}
  AND event_id = '00000000-0000-0000-0000-000000000000'
