-- Isolation cases: insert a row.
INSERT INTO {schema}.doctor_scratch (shard, position, event_id, flag)
VALUES ({shard}, {position}, '00000000-0000-0000-0000-000000000000', {flag})
