-- Aurora DSQL: how the newest build of an index stands. DSQL forgets a job half an
-- hour after its end; then there is no row.
SELECT status, details FROM sys.jobs
WHERE job_type = 'INDEX_BUILD' AND object_name IN (%(name)s, %(schema)s || '.' || %(name)s)
ORDER BY start_time DESC NULLS FIRST LIMIT 1
