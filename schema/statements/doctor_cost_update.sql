-- Return the cost in DPU that Aurora DSQL reports for an update of one small column. It
-- shows whether the other 4 KiB of the row are written again.
EXPLAIN (ANALYZE, VERBOSE) UPDATE {schema}.doctor_scratch SET flag = 1
WHERE shard = 0 AND position = {position} AND event_id = '00000000-0000-0000-0000-000000000000'
