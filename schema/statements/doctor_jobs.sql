-- Only Aurora DSQL has this table, so its presence identifies the server.
SELECT job_id FROM sys.jobs LIMIT 0
