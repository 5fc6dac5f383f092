-- Plan the relay's read. The row comparison should be a bound of the key range.
EXPLAIN SELECT position FROM {schema}.doctor_scratch
WHERE shard = 0 AND (position, event_id) > (5, '00000000-0000-0000-0000-000000000000')
ORDER BY position, event_id LIMIT 10
