-- Insert rows behind each other, at the end of one range of keys.
INSERT INTO {schema}.doctor_scratch (shard, position, event_id)
SELECT 0, {position} + n, gen_random_uuid() FROM generate_series(1, {rows}) AS n
