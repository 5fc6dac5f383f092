-- Insert rows at keys that are spread over the table.
INSERT INTO {schema}.doctor_scratch (shard, position, event_id)
SELECT floor(random() * 2000000000)::int, {position} + n, gen_random_uuid()
FROM generate_series(1, {rows}) AS n
