-- At the only isolation level of Aurora DSQL, so that PostgreSQL's answers compare.
BEGIN ISOLATION LEVEL REPEATABLE READ
