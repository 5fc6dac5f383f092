-- The smallest write. {position} distinguishes the rows of the probes.
INSERT INTO {schema}.doctor_scratch (shard, position, event_id)
VALUES (0, {position}, '00000000-0000-0000-0000-000000000000')
