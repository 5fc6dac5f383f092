-- Isolation cases: read one row by its full key and lock it. No other statement locks a
-- row without a change: this one asks whether FOR UPDATE prevents write skew.
SELECT position, flag FROM {schema}.doctor_scratch
WHERE shard = {shard} AND position = {position}
  AND event_id = '00000000-0000-0000-0000-000000000000' FOR UPDATE
