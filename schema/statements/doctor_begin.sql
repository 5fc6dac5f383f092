-- At the one level of Aurora DSQL, so that PostgreSQL's answers can be compared with it.
BEGIN ISOLATION LEVEL REPEATABLE READ
