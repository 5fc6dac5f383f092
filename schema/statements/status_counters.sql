-- Return how many rows were ever inserted into the outbox and deleted from it, by
-- PostgreSQL's statistics. Two readings give a rate, and no row is counted. Rolled-back
-- rows are included, and the numbers lag by some seconds. DSQL does not keep them.
SELECT pg_stat_get_tuples_inserted(o.id) AS put, pg_stat_get_tuples_deleted(o.id) AS taken
FROM (SELECT '{schema}.outbox'::regclass::oid AS id) AS o
