-- Estimate the number of rows of a table by the planner's statistics. A count would cost as
-- much as reading them. Below 0: the table was never analyzed.
SELECT c.reltuples::bigint FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relname = %(table)s
