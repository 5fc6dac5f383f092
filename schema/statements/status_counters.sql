-- How many rows were ever put into the outbox and taken out of it, by PostgreSQL's own
-- statistics: two looks make rates, and nothing is counted. Rows that were rolled back
-- are in it, and it is some seconds late. DSQL does not keep these numbers.
SELECT pg_stat_get_tuples_inserted(o.id), pg_stat_get_tuples_deleted(o.id)
FROM (SELECT '{schema}.outbox'::regclass::oid AS id) AS o
