-- Only Aurora DSQL has this table: whether it is there tells which server answers.
SELECT job_id FROM sys.jobs LIMIT 0
