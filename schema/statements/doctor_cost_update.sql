-- What it says an update of one small column costs: the row's 4 KiB are written again, or not.
EXPLAIN (ANALYZE, VERBOSE) UPDATE {schema}.doctor_scratch SET flag = 1
WHERE shard = 0 AND position = {position} AND event_id = '00000000-0000-0000-0000-000000000000'
