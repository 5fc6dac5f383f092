-- Only Aurora DSQL has this table, so its presence identifies the server.
SELECT status FROM sys.jobs LIMIT 0
