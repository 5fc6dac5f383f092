-- Plan the statement behind this one, in the same transaction, once for all values, and by an index.
-- Such a plan lasts. One that was made while a table was empty would read the whole table when it has
-- filled, until PostgreSQL has counted its rows.
-- Aurora DSQL has no such settings.
SELECT set_config('plan_cache_mode', 'force_generic_plan', true),
  set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)
