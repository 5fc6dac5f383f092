-- Return the cost in DPU that Aurora DSQL reports for an insert of a text.
EXPLAIN (ANALYZE, VERBOSE) INSERT INTO {schema}.doctor_scratch (shard, position, event_id, doc)
VALUES (0, {position}, '00000000-0000-0000-0000-000000000000', to_json(%(text)s::text))
